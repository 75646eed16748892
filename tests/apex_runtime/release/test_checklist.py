"""A checkout that may be released, and one that has nothing."""

from __future__ import annotations

from pathlib import Path

from release_checkout import Made


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
