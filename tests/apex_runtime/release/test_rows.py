"""Each row alone: what takes it away, and that nothing else goes with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from contracts import made_contract
from release_checkout import Made, case, docs_case, sweep

from apex_runtime.fairness.evidence import write_evidence_bundle
from apex_runtime.parity.report import SCHEMA_VERSION
from apex_runtime.release.row import Row

Only = Callable[[str, str], Row]
GOOD = "".join(map(case, range(20))) + docs_case("page")


def test_all_rows_pass(made: Made) -> None:
    rows = made.rows()
    assert {row.status for row in rows.values()} == {"pass"}, rows
    assert rows["parity"].reason == "2 comparisons of the shipped engine pass; commits since: 1"
    assert rows["tests"].reason == "21 tests, 0 failed, 0 skipped" and rows["tests"].file == "release/tests.xml"
    assert all(not row.details for row in rows.values())


def test_nothing_is_there_but_a_version(tmp_path: Path) -> None:
    made = Made(tmp_path)
    made.write("pyproject.toml", '[project]\nversion = "1.2.0"\n')
    rows = made.rows()
    assert {row.status for row in rows.values()} == {"not run", "fail"}
    assert {name for name, row in rows.items() if row.status == "fail"} == {"docs"}
    assert rows["tests"].reason == "tests.xml is missing"


# ---- tests


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


# ---- parity


def comparisons(*verdicts: str) -> list[dict[str, Any]]:
    return [{"candidate": {"path": f"c{number}"}, "verdict": verdict} for number, verdict in enumerate(verdicts)]


PARITY = {
    "a comparison fails": ({"comparisons": comparisons("pass", "fail")}, "fail", "1 of 2"),
    "the verdict fails": ({"verdict": "fail"}, "fail", "verdict fail"),
    "no comparison": ({"comparisons": []}, "fail", "comparisons"),
    "another engine": ({"reference": {"sha256": "0" * 64}}, "not run", "000000000000"),
    "another version": ({"schema_version": SCHEMA_VERSION - 1}, "not run", "version"),
    "no hash": ({"reference": {}}, "fail", "sha256"),
}


@pytest.mark.parametrize(("fields", "status", "says"), PARITY.values(), ids=list(PARITY))
def test_parity(fields: dict[str, Any], status: str, says: str, made: Made, only: Only) -> None:
    made.json("bench/evidence/parity-sweep.json", sweep(made.git("rev-parse", "HEAD"), **fields))
    made.commit()
    made.results()
    made.regression()
    assert says in only("parity", status).reason


def test_parity_of_an_engine_that_was_exchanged(made: Made) -> None:
    made.write("engines/nuclei-nano/model.onnx", b"a better engine")
    made.commit()
    made.results()
    made.regression()
    rows = made.rows()
    assert {name for name, row in rows.items() if row.status == "not run"} == {"parity", "regression"}


def test_the_parity_of_this_project_is_understood(repo_root: Path) -> None:
    """The file that is kept has the form that the row reads, and the row says what the file does."""
    from apex_runtime.release.checkout import Checkout
    from apex_runtime.release.parity_row import PARITY as FILE
    from apex_runtime.release.parity_row import parity_row

    written = json.loads((repo_root / FILE).read_text())
    row = parity_row(Checkout(repo_root))
    digest = hashlib.sha256((repo_root / "engines" / "nuclei-nano" / "model.onnx").read_bytes()).hexdigest()
    if written["parity"]["reference"]["sha256"] != digest:
        assert row.status == "not run"
    else:
        assert row.status == written["parity"]["verdict"]
        assert f"{len(written['parity']['comparisons'])} comparisons" in row.reason


# ---- regression


REGRESSION = {
    "a regression": ({"verdict": "fail", "reasons": ["graph@1.0: slower"]}, "fail", "regression"),
    "another form": ({"format_version": 2}, "fail", "format_version"),
    "uncommitted": ({"code": {"commit": "HEAD", "dirty": True}}, "not run", "everything committed"),
    "perhaps uncommitted": ({"code": {"commit": "HEAD", "dirty": None}}, "not run", "everything committed"),
    "another verdict": ({"verdict": "maybe"}, "fail", "verdict"),
    "another engine": ({"engine": {"model_sha256": "0" * 64}}, "not run", "000000000000"),
    "another commit": ({"code": {"commit": "0" * 40, "dirty": False}}, "not run", "of commit 000000000000"),
    "no commit": ({"code": {"commit": None, "dirty": None}}, "not run", "does not say"),
    "no engine": ({"engine": None}, "fail", "engine"),
    "a number that is none": ({"verdict": float("nan")}, "fail", "verdict"),
}


@pytest.mark.parametrize(("fields", "status", "says"), REGRESSION.values(), ids=list(REGRESSION))
def test_regression(fields: dict[str, Any], status: str, says: str, made: Made, only: Only) -> None:
    if fields.get("code", {}).get("commit") == "HEAD":
        fields = {"code": fields["code"] | {"commit": made.git("rev-parse", "HEAD")}}
    made.regression(**fields)
    row = only("regression", status)
    assert says in row.reason and row.details == tuple(fields.get("reasons", ()))


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"verdict": "pass"'])
def test_an_answer_that_is_none(text: str, made: Made, only: Only) -> None:
    made.write("release/regression.json", text)
    assert "regression.json" in only("regression", "fail").reason


def test_no_answer(made: Made, only: Only) -> None:
    (made.root / "release" / "regression.json").unlink()
    assert only("regression", "not run").reason == "regression.json is missing"


# ---- evidence


EVIDENCE = {
    "not JSON": ("{", "not JSON"),
    "no circumstances": ({"rows": []}, "circumstances"),
    "a commit that is not here": ({"circumstances": {"commit": "0" * 40, "dirty": False}}, "not in the history"),
    "a word for a commit": ({"circumstances": {"commit": "HEAD", "dirty": False}}, "not in the history"),
    "an option for a commit": ({"circumstances": {"commit": "--batch-check", "dirty": False}}, "not in the history"),
    "no commit": ({"circumstances": {"commit": None, "dirty": None}}, "not in the history"),
    "dirty": ({"circumstances": {"commit": "FIRST", "dirty": True, "note": "in a copy"}}, "dirty (its note: in a copy)"),
    "perhaps dirty": ({"circumstances": {"commit": "FIRST", "dirty": None}}, "not known"),
}


@pytest.mark.parametrize(("content", "says"), EVIDENCE.values(), ids=list(EVIDENCE))
def test_evidence(content: Any, says: str, made: Made, only: Only) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    made.write("bench/evidence/more/new.json", text.replace("FIRST", made.git("rev-list", "--max-parents=0", "HEAD")))
    made.commit()
    made.results()
    made.regression()
    row = only("evidence", "fail")
    assert row.reason == "3 files, objections: 1"
    assert row.details[0].startswith("more/new.json: " if isinstance(content, dict) and "circumstances" in content else "")
    assert says in row.details[0]


def bundle(made: Made, name: str) -> Path:
    """A folder as ``apex-rt bench --evidence`` writes it."""
    contract = made_contract()
    folder = made.root / "bench" / "evidence" / name
    write_evidence_bundle(folder, "apex-rt bench", {contract.sha256(): contract}, {"rows": []}, [1.0], {"engine": "0" * 64})
    return folder


def test_a_bundle_says_it_for_all_of_its_files(made: Made) -> None:
    folder = bundle(made, "speed-here")
    head = json.loads((folder / "evidence.json").read_text())
    code = {"commit": made.git("rev-parse", "HEAD"), "dirty": False}
    (folder / "evidence.json").write_text(json.dumps(head | code))
    assert made.rows()["evidence"].status == "pass"
    (folder / "evidence.json").write_text(json.dumps(head | code | {"dirty": True}))
    assert made.rows()["evidence"].details == ("speed-here/evidence.json: it calls itself dirty",)
    (folder / "evidence.json").write_text(json.dumps(head | code))
    (folder / "samples.json").write_text("[2.0]\n")
    (fault,) = made.rows()["evidence"].details
    assert fault.startswith("speed-here/evidence.json: ") and "samples.json: missing, or changed" in fault


def test_every_objection_is_listed(made: Made) -> None:
    for number in range(30):
        made.json(f"bench/evidence/{number}.json", {"circumstances": {"commit": "0" * 40, "dirty": False}})
    assert len(made.rows()["evidence"].details) == 30


def test_figures_that_are_not_those_of_the_files(made: Made) -> None:
    made.write("README.md", (made.root / "README.md").read_text().replace("figures: 1", "figures: 2"))
    row = made.rows()["evidence"]
    assert row.status == "fail" and row.details == ("README.md: the figures are not those of the files",)


@pytest.mark.parametrize("program", ["import no_such_library", "raise SystemExit(1)", "raise SystemExit(2)"])
def test_figures_that_could_not_be_compared(program: str, made: Made) -> None:
    """A program that breaks has not said that the figures are wrong."""
    made.write("bench/readme_figures.py", program)
    row = made.rows()["evidence"]
    assert row.status == "not run" and "gave no answer" in row.details[0]
    made.json("bench/evidence/new.json", {})
    assert made.rows()["evidence"].status == "fail"


def test_the_history_must_be_there(made: Made, tmp_path: Path) -> None:
    made.git("clone", "-q", "--depth", "1", f"file://{made.root}", str(tmp_path / "shallow"))
    shallow = Made(tmp_path / "shallow").rows()["evidence"]
    assert shallow.status == "not run" and "shallow" in shallow.reason


def test_a_folder_inside_another_checkout_is_not_that_checkout(made: Made) -> None:
    inside = Made(made.root / "inside")
    inside.write("pyproject.toml", '[project]\nversion = "1.2.0"\n')
    inside.write("release/tests.xml", made.results().read_text())
    assert "git does not say" in inside.rows()["tests"].reason


# ---- docs


LINKS = {
    "no file": "[a](nowhere.md)",
    "no heading": "[a](#nowhere)",
    "no heading elsewhere": "[a](../README.md#nowhere)",
    "out of the checkout": "[a](../..)",
    "a picture": "![a](picture.png)",
    "a heading of what has none": "[a](../pyproject.toml#a)",
    "a third heading": "[a](#a-heading-with-code-twice-2)",
}


@pytest.mark.parametrize("link", LINKS.values(), ids=list(LINKS))
def test_a_link_that_leads_nowhere(link: str, made: Made) -> None:
    made.write("docs/page.md", (made.root / "docs" / "page.md").read_text() + link)
    row = made.rows()["docs"]
    assert row.status == "fail" and len(row.details) == 1 and row.details[0].startswith("page.md: ")


def test_a_page_whose_commands_failed_did_not_run_or_are_new(made: Made) -> None:
    made.results("".join(map(case, range(20))) + docs_case("page", "failure"), exit_status="1")
    row = made.rows()["docs"]
    assert (row.status, row.details) == ("fail", ("test_the_commands_of_a_document_run[page]",))
    for cases in (docs_case("page", "skipped"), docs_case("other"), case("the_commands_of_a_document_run[page]")):
        made.results("".join(map(case, range(20))) + cases)
        row = made.rows()["docs"]
        assert (row.status, row.details) == ("not run", ("page.md",))


def test_the_name_of_the_test_of_the_pages(repo_root: Path) -> None:
    from apex_runtime.release.docs_row import COMMANDS, TESTS

    path = repo_root / Path(*TESTS.split(".")).with_suffix(".py")
    assert f"def {COMMANDS}(document: Path" in path.read_text() and "id=path.stem" in path.read_text()


def test_the_links_of_this_project(repo_root: Path) -> None:
    from apex_runtime.release.docs_row import OTHERS, broken_links

    pages = [*sorted((repo_root / "docs").glob("*.md")), *(repo_root / name for name in OTHERS)]
    assert [fault for page in pages for fault in broken_links(repo_root, page)] == []


# ---- changelog


CHANGELOGS = {
    "unreleased work": ("## Unreleased\n\n* New.\n\n## 1.2.0\n\n* More.\n", "newest section with content is Unreleased"),
    "another version": ("## 1.1.0\n\n* Less.\n", "is 1.1.0"),
    "an empty section": ("## 1.2.0\n\n## 1.1.0\n\n* Less.\n", "empty"),
    "no section": ("Nothing.\n", "no section"),
    "a part of the version": ("## 1.2\n\n* More.\n", "is 1.2"),
}


@pytest.mark.parametrize(("text", "says"), CHANGELOGS.values(), ids=list(CHANGELOGS))
def test_a_changelog_of_something_else(text: str, says: str, made: Made) -> None:
    made.write("CHANGELOG.md", text)
    row = made.rows()["changelog"]
    assert row.status == "fail" and says in row.reason


@pytest.mark.parametrize("heading", ["## 1.2.0", "## [1.2.0] - 2026-11-28", "## 1.2.0 (28 November)"])
def test_a_changelog_of_the_version(heading: str, made: Made) -> None:
    made.write("CHANGELOG.md", f"# Changelog\n\n## Unreleased\n\n{heading}\n\n* More.\n")
    assert made.rows()["changelog"].status == "pass"
