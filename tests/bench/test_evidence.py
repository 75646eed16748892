"""What stands beside a figure where there is no git: a copy of the files, or an unpacked archive."""

from __future__ import annotations

import json
from pathlib import Path

import evidence
import pytest


def test_a_copy_without_git_says_that_its_commit_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "git", lambda *_words: None)
    monkeypatch.delenv("APEX_COMMIT", raising=False)
    evidence.write_evidence(tmp_path / "e.json", {"figure": 1})
    written = json.loads((tmp_path / "e.json").read_text())
    assert written["circumstances"]["commit"] is None and written["circumstances"]["dirty"] is None and written["figure"] == 1


def test_a_copy_may_be_told_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "git", lambda *_words: None)
    monkeypatch.setenv("APEX_COMMIT", "0123abc")
    assert evidence.circumstances()["commit"] == "0123abc"


def test_an_absolute_path_leaves_only_its_last_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["bench/halo.py", "/somewhere/of/mine/model.onnx", "--size", "64"])
    assert evidence.circumstances()["command"] == "python bench/halo.py model.onnx --size 64"
