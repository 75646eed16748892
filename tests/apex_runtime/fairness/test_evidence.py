"""A bundle is written as a whole, over nothing, and read only as it was written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from contracts import made_contract

from apex_runtime.errors import DataError, UsageError
from apex_runtime.fairness.evidence import read_evidence, write_evidence_bundle


@pytest.fixture(autouse=True)
def _no_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apex_runtime.fairness.evidence._capabilities", list)


def write(folder: Path) -> None:
    contract = made_contract()
    write_evidence_bundle(folder, "apex-rt bench", {contract.sha256(): contract}, {"rows": []}, [], {})


def test_it_takes_the_place_of_an_empty_folder_and_leaves_nothing_beside_it(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    write(Path("."))
    write(tmp_path / "new" / "claim")
    for folder in (tmp_path / "empty", tmp_path / "new" / "claim"):
        assert read_evidence(folder)["command"] == "apex-rt bench"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["claim"]
    with pytest.raises(UsageError, match="never overwritten"):
        write(tmp_path / "empty")


@pytest.mark.parametrize("name", ["report.json", "contract.json", "samples.json"])
def test_a_file_that_is_not_listed_is_not_believed(tmp_path: Path, name: str) -> None:
    write(tmp_path / "claim")
    path = tmp_path / "claim" / "evidence.json"
    head = json.loads(path.read_text())
    del head["files"][name]
    path.write_text(json.dumps(head))
    with pytest.raises(DataError, match="not evidence of format"):
        read_evidence(tmp_path / "claim")
