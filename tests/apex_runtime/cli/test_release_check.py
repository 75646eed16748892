"""``apex-rt release-check``: exit codes, the JSON and the table."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from release_checkout import Made, releasable


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return releasable(tmp_path / "checkout")


def test_what_may_be_released(made: Made, apex_rt: Callable, validate: Callable[[str, object], None]) -> None:
    ran = apex_rt("release-check", "--root", made.root, "--json")
    assert ran.code == 0, ran.out
    document = json.loads(ran.out)
    validate("release", document)
    assert (document["verdict"], document["version"], document["uncommitted"]) == ("pass", "1.2.0", [])
    assert document["commit"] == made.git("rev-parse", "HEAD")
    table = apex_rt("release-check", "--root", made.root)
    assert table.code == 0 and table.out.count("│ pass ") == 6 and "release 1.2.0" in table.out


@pytest.mark.parametrize("missing", ["release/tests.xml", "release/regression.json"])
def test_what_was_not_run_is_a_no(missing: str, made: Made, apex_rt: Callable, validate: Callable[[str, object], None]) -> None:
    (made.root / missing).unlink()
    ran = apex_rt("release-check", "--root", made.root, "--json")
    assert ran.code == 1
    document = json.loads(ran.out)
    validate("release", document)
    assert document["verdict"] == "fail" and "not run" in {row["status"] for row in document["rows"]}


def test_every_detail_is_shown_as_it_stands(made: Made, apex_rt: Callable) -> None:
    made.json("bench/evidence/[bold]new.json", {"circumstances": {"commit": "0" * 40, "dirty": False, "note": "[red]a note"}})
    ran = apex_rt("release-check", "--root", made.root)
    assert ran.code == 1
    line = f"evidence: [bold]new.json: commit {'0' * 40} is not in the history (its note: [red]a note)"
    assert line in ran.out.splitlines()


def test_files_elsewhere_are_named_by_their_last_part(made: Made, apex_rt: Callable, tmp_path: Path) -> None:
    tests, regression = tmp_path / "a.xml", tmp_path / "b.json"
    os.replace(made.root / "release" / "tests.xml", tests)
    os.replace(made.root / "release" / "regression.json", regression)
    ran = apex_rt("release-check", "--root", made.root, "--tests", tests, "--regression", regression, "--json")
    assert ran.code == 0
    assert [row["file"] for row in json.loads(ran.out)["rows"]][::2] == ["a.xml", "b.json", "docs"]
    assert str(tmp_path) not in ran.out


@pytest.mark.parametrize("options", [("--root", "nowhere"), ("--root", ""), ("--tests", " "), ("extra",)])
def test_wrong_usage(options: tuple[str, ...], apex_rt: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = apex_rt("release-check", *options)
    assert ran.code == 2 and ran.out == ""


@pytest.mark.parametrize("text", ["", "[project]\n", "project = 1\n", "[project\n"])
def test_a_checkout_without_a_version(text: str, made: Made, apex_rt: Callable) -> None:
    made.write("pyproject.toml", text)
    for words in ((), ("--json",)):
        ran = apex_rt("release-check", "--root", made.root, *words)
        assert ran.code == 1 and "Traceback" not in ran.err
