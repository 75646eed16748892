"""The row "tests": the whole suite, to its end, at this commit."""

from __future__ import annotations

from apex_runtime.release.checkout import Checkout
from apex_runtime.release.junit import TestResults
from apex_runtime.release.row import Row

MAX_SKIPPED_SHARE = 0.10  # more, and a green run says little; tests/conftest.py fails such a run with the same number
_NAMED = 20


def tests_row(checkout: Checkout, results: TestResults, file: str) -> Row:
    """What ``results``, read from ``file``, say about the checkout.

    The properties ``commit``, ``changed_files``, ``whole_suite`` and ``exit_status`` are those that tests/conftest.py records.
    """
    why_not = why_not_these_tests(checkout, results)
    if why_not:
        return Row("tests", "not run", why_not, file)
    failed, skipped, total = results.count("failed"), results.count("skipped"), len(results.cases)
    counts = f"{total} tests, {failed} failed, {skipped} skipped"
    if not total or not results.count("passed"):
        return Row("tests", "fail", f"{counts}: none passed", file)
    if failed:
        names = [f"{case.module}::{case.name}" for case in results.cases if case.outcome == "failed"]
        return Row("tests", "fail", counts, file, tuple(names[:_NAMED]))
    if skipped > MAX_SKIPPED_SHARE * total:
        return Row("tests", "fail", f"{counts}, more than {MAX_SKIPPED_SHARE:.0%}", file)
    status = results.properties["exit_status"]
    return Row("tests", "pass" if status == "0" else "fail", counts if status == "0" else f"{counts}; exit status {status}", file)


def why_not_these_tests(checkout: Checkout, results: TestResults) -> str:
    """Why the run says nothing about the checkout; empty when it does."""
    properties = results.properties
    why_not = checkout.why_not_of(properties.get("commit"))
    if why_not:
        return why_not
    if properties.get("changed_files") != "0":
        return f"{properties.get('changed_files', 'an unknown number of')} files were not committed when it ran"
    if properties.get("whole_suite") != "yes":
        return "only a part of the suite was asked for"
    # 0 and 1 are those of a run to its end, pytest's others are not
    status = properties.get("exit_status")
    return "" if status in ("0", "1") else f"it did not run to its end: exit status {status or 'not recorded'}"
