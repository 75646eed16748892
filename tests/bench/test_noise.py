"""What wrong labels cost, very small: every arm runs, what is done is kept, and the figures are those of the cells."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from noise import main

SMALL = ("train.size=128", "train.crop=64", "train.batch=4", "train.workers=0", "train.learning_rate=0.0001")


def noise(data: Path, repo_root: Path, folder: Path, *more: str) -> Result:
    words = [str(data), "--split", "val", "--missing", "0.1", "--shifted", "0.1", "--epochs", "1", "--threads", "1"]
    words += [word for text in SMALL for word in ("--set", text)]
    words += ["--init", str(repo_root / "engines" / "nuclei-nano" / "checkpoint.pt")]
    words += ["--output", str(folder), "--evidence", str(folder / "evidence.json")]
    return CliRunner().invoke(main, [*words, *more], catch_exceptions=False)


@pytest.mark.slow
def test_arms_are_trained_once_and_compared(nuclei_fixture: Path, repo_root: Path, tmp_path: Path) -> None:
    data = shutil.copytree(nuclei_fixture, tmp_path / "set")
    words = ["--seeds", "1", "--arms", "curriculum"]
    assert noise(data, repo_root, tmp_path / "out", *words).exit_code == 0
    content = json.loads((tmp_path / "out" / "evidence.json").read_text())
    assert list(content["values"]) == ["clean", "plain", "curriculum"] and content["seeds"] == [1]
    assert all(values[0] > 0.1 for values in content["values"].values())
    spent = content["cpu_seconds"]
    assert spent["curriculum"]["all"] > spent["curriculum"]["training"] + spent["plain"]["training"]
    assert spent["plain"]["all"] == spent["plain"]["training"] > 1
    lost = content["values"]["clean"][0] - content["values"]["plain"][0]
    assert content["recovered"]["curriculum"]["lost"]["value"] == pytest.approx(lost)
    assert content["label_quality"][0]["truth"]["kinds"][1]["annotations"] > 0
    settings = (tmp_path / "out" / "runs" / "curriculum-1" / "config.yaml").read_text()
    assert "first: 0.5" in settings and "seed: 1" in settings

    (tmp_path / "out" / "cells" / "curriculum-1.json").unlink()  # as if it had been stopped there
    untouched = (tmp_path / "out" / "runs" / "plain-1" / "last.pt").stat().st_mtime_ns
    again = noise(data, repo_root, tmp_path / "out", *words)
    assert again.exit_code == 0 and "curriculum 1: mAP_segm" in again.output and "plain 1" not in again.output
    assert (tmp_path / "out" / "runs" / "plain-1" / "last.pt").stat().st_mtime_ns == untouched
    (tmp_path / "out" / "cells" / "judge-1.json").unlink()  # the curriculum is there, what it was made with is not
    assert noise(data, repo_root, tmp_path / "out", *words).exit_code == 0
    judged = json.loads((tmp_path / "out" / "evidence.json").read_text())["label_quality"]
    assert judged[0]["truth"] == content["label_quality"][0]["truth"]
    other = noise(data, repo_root, tmp_path / "out", *words, "--spurious", "0.1")
    assert other.exit_code == 1 and "is of other settings" in other.output


def test_an_unknown_arm_is_refused(nuclei_fixture: Path, repo_root: Path, tmp_path: Path) -> None:
    result = noise(nuclei_fixture, repo_root, tmp_path, "--arms", "luck")
    assert result.exit_code == 2 and "luck" in result.output
