"""What takes the row "evidence" away: files that do not say how they were made, and figures that are not theirs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from contracts import made_contract
from release_checkout import Made

from apex_runtime.fairness.evidence import write_evidence_bundle
from apex_runtime.release.row import Row

Only = Callable[[str, str], Row]


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
