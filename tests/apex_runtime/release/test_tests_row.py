"""What takes the row "tests" away: failures, skips, and runs that say nothing about this commit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from release_checkout import Made, case, docs_case

from apex_runtime.release.row import Row

Only = Callable[[str, str], Row]
GOOD = "".join(map(case, range(20))) + docs_case("page")


FAILING = {
    "one failed": (GOOD + case("bad", "failure"), {"exit_status": "1"}, "1 failed"),
    "one broke": (GOOD + case("bad", "error"), {"exit_status": "1"}, "1 failed"),
    "one failed, whatever the status says": (GOOD + case("bad", "failure"), {}, "1 failed"),
    "too many skipped": (GOOD + "".join(case(f"s{n}", "skipped") for n in range(3)), {}, "more than 10%"),
    "all green, and the run failed": (GOOD, {"exit_status": "1"}, "exit status 1"),
}


@pytest.mark.parametrize(("cases", "properties", "says"), FAILING.values(), ids=list(FAILING))
def test_a_suite_that_fails(cases: str, properties: dict[str, str], says: str, made: Made, only: Only) -> None:
    made.results(cases, **properties)
    row = only("tests", "fail")
    assert says in row.reason
    assert row.details == (("tests.test_more::test_bad",) if "bad" in cases else ())


def test_a_tenth_may_be_skipped(made: Made) -> None:
    made.results(GOOD[: GOOD.index("<testcase", 1)] * 17 + docs_case("page") + case("a", "skipped") + case("b", "skipped"))
    assert made.rows()["tests"].status == "pass"
    made.results(docs_case("page") * 17 + case("a", "skipped") + case("b", "skipped"))
    assert made.rows()["tests"].status == "fail"


def test_no_test_is_no_success(made: Made) -> None:
    for cases in (" ", case("a", "skipped")):
        made.results(cases)
        assert made.rows()["tests"].status == "fail"


STALE = {
    "another commit": ({"commit": "0" * 40}, "of commit 000000000000"),
    "no commit": ({"commit": None}, "does not say"),
    "a copy without git": ({"commit": ""}, "does not say"),
    "uncommitted then": ({"changed_files": "2"}, "2 files were not committed"),
    "not recorded what was uncommitted": ({"changed_files": None}, "unknown number"),
    "a part": ({"whole_suite": "no"}, "a part"),
    "a part, not said": ({"whole_suite": None}, "a part"),
    "interrupted": ({"exit_status": "2"}, "exit status 2"),
    "an internal error": ({"exit_status": "3"}, "exit status 3"),
    "no end": ({"exit_status": None}, "not recorded"),
}


@pytest.mark.parametrize(("properties", "says"), STALE.values(), ids=list(STALE))
def test_a_run_that_says_nothing_about_this_commit(properties: dict[str, Any], says: str, made: Made) -> None:
    """Also when something failed in it: it is not known here, for tests and for the commands of the pages."""
    for cases in (GOOD, GOOD + case("bad", "failure")):
        made.results(cases, **properties)
        rows = made.rows()
        assert {name: row.status for name, row in rows.items() if row.status != "pass"} == {"tests": "not run", "docs": "not run"}
        assert says in rows["tests"].reason and says in rows["docs"].reason


def test_a_change_after_the_run(made: Made) -> None:
    made.write("CONTRIBUTING.md", "Be kinder.\n")
    rows = made.rows()
    assert {name for name, row in rows.items() if row.status == "not run"} == {"tests", "regression", "docs"}
    assert "not everything is committed: CONTRIBUTING.md" in rows["tests"].reason
    made.commit()
    assert "of commit" in made.rows()["tests"].reason


def test_a_new_file_that_is_in_no_commit(made: Made) -> None:
    made.results()
    made.write("apex/new module.py", "")
    assert made.rows()["tests"].reason == "not everything is committed: apex/new module.py"
    made.write(".gitignore", (made.root / ".gitignore").read_text() + "/apex/\n")
    made.commit()
    made.results()
    assert made.rows()["tests"].status == "pass"


def test_a_damaged_file_of_results(made: Made) -> None:
    made.write("release/tests.xml", "<!DOCTYPE a><testsuites/>")
    rows = made.rows()
    assert rows["tests"].status == "fail" and "document type" in rows["tests"].reason
    assert rows["docs"].status == "not run"
