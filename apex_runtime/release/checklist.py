"""All rows of a checkout, in one order. A file that is missing or damaged is a row, not an end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from apex_runtime.errors import DataError
from apex_runtime.release.changelog_row import CHANGELOG, changelog_row
from apex_runtime.release.checkout import Checkout
from apex_runtime.release.docs_row import PAGES, docs_row
from apex_runtime.release.evidence_row import EVIDENCE, evidence_row
from apex_runtime.release.junit import TestResults, read_junit
from apex_runtime.release.parity_row import PARITY, parity_row
from apex_runtime.release.regression_row import regression_row
from apex_runtime.release.row import Row
from apex_runtime.release.tests_row import tests_row


def checklist(checkout: Checkout, tests: Path, regression: Path) -> tuple[Row, ...]:
    """The rows of a checkout; ``tests`` is a JUnit XML file, ``regression`` an answer of ``bench check``."""
    read: list[TestResults] = []

    def of_tests() -> Row:
        read.append(read_junit(tests))
        return tests_row(checkout, read[0], checkout.name_of(tests))

    first = _row("tests", checkout.name_of(tests), of_tests)
    return (
        first,
        _row("parity", PARITY, partial(parity_row, checkout)),
        _row("regression", checkout.name_of(regression), partial(regression_row, checkout, regression)),
        _row("evidence", EVIDENCE, partial(evidence_row, checkout)),
        _row("docs", PAGES, partial(docs_row, checkout, read[0] if read else None, checkout.name_of(tests))),
        _row("changelog", CHANGELOG, partial(changelog_row, checkout)),
    )


def _row(name: str, file: str, make: Callable[[], Row]) -> Row:
    try:
        return make()
    except FileNotFoundError as error:
        missing = Path(error.filename).name if error.filename else file
        return Row(name, "not run", f"{missing} is missing", file)
    except DataError as error:
        return Row(name, "fail", error.message, file)
    except (OSError, UnicodeDecodeError) as error:
        return Row(name, "fail", f"it cannot be read: {getattr(error, 'strerror', None) or error}", file)
