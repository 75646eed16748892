"""``apex-train ablate`` as a person types it: real trainings of a toy, stopped, resumed and judged."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import yaml
from click.testing import CliRunner, Result

from apex_runtime.data.open import open_dataset
from apex_train.ablation.journal import Entry, Journal
from apex_train.ablation.plan import plan
from apex_train.ablation.study import read_study
from apex_train.checkpoint import load_model
from apex_train.cli.main import main
from apex_train.config import load_config

TOY = {"train.size": 128, "train.crop": 64, "train.batch": 4, "train.workers": 0, "train.warmup_steps": 1, "train.device": "cpu"}


def ablate(*words: object) -> Result:
    return CliRunner().invoke(main, ["ablate", *map(str, words)])


def write_study(folder: Path, data: Path, **changes: Any) -> Path:
    study = {
        "name": "toy",
        "data": str(data),
        "set": TOY,
        "epochs": 1,
        "seeds": [0, 1],
        "test": "student",
        "evaluate": {"budget": 0.5},
        "factors": [
            {"key": "loss.box_kind", "levels": ["ciou", "iou"]},
            {"key": "evaluate.choice", "levels": ["router", "random", "coverage"]},
        ],
    }
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(study | changes))
    return file


def test_what_is_measured_is_judged_without_a_training(nuclei_fixture: Path, tmp_path: Path, repo_root: Path) -> None:
    """All cells are there: report, picture, recipe and log, of a study that says under ``set`` how it is measured."""
    output, log = tmp_path / "out", tmp_path / "LOG.md"
    log.write_text("# What was tried\n")
    file = write_study(tmp_path, nuclei_fixture, set=TOY | {"evaluate.budget": 0.25}, dataset_type="coco", seeds=[0, 1, 2])
    study = read_study(file)
    fingerprints = "".join(open_dataset(nuclei_fixture, split, "coco").fingerprint() for split in ("train", "val"))
    for training in plan(study, hashlib.sha256(fingerprints.encode()).hexdigest()):
        for cell in training.cells:
            value = 0.3 + 0.1 * ("iou" in cell.levels) + 0.001 * cell.seed * len(cell.levels[1])
            entry = Entry(key=cell.key, metric="mAP_segm", value=value, training_seconds=60 + cell.seed, commit=None)
            Journal(output).add(entry)
    result = ablate(file, "--output", output, "--log", log, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    jsonschema.validate(report, json.loads((repo_root / "apex_runtime" / "schemas" / "ablation.schema.json").read_text()))
    assert report["comparisons"][0]["verdict"] == "validated" and not (output / "runs").exists()
    assert json.loads((output / "report.json").read_text()) == report
    assert (output / "report.png").read_bytes().startswith(b"\x89PNG") and log.read_text().count("(ablation)") == 1
    assert load_config(output / "kept.yaml", {}).loss.box_kind == "iou"


@pytest.mark.slow
def test_a_study_is_trained_judged_and_not_trained_twice(nuclei_fixture: Path, tmp_path: Path, repo_root: Path) -> None:
    output, log = tmp_path / "out", tmp_path / "LOG.md"
    log.write_text("# What was tried\n")
    file = write_study(tmp_path, nuclei_fixture)
    planned = ablate(file, "--output", output, "--dry-run", "--json")
    assert json.loads(planned.stdout) == {"trainings": 4, "cells": 8, "trainings_left": 4, "cells_left": 8}
    assert not output.exists()
    first = ablate(file, "--output", output, "--threads", 1, "--log", log, "--json")
    assert first.exit_code == 0, first.output
    report = json.loads(first.stdout)
    jsonschema.validate(report, json.loads((repo_root / "apex_runtime" / "schemas" / "ablation.schema.json").read_text()))
    assert json.loads((output / "report.json").read_text()) == report
    assert (output / "report.png").read_bytes().startswith(b"\x89PNG")
    assert log.read_text().count("(ablation)") == 1
    pairs = [(each["factor"], each["level"]) for each in report["comparisons"]]
    assert pairs == [("loss.box_kind", "iou"), ("evaluate.choice", "random"), ("evaluate.choice", "coverage")]

    shutil.rmtree(output / "runs")  # what is measured needs no training any more
    again = ablate(file, "--output", output, "--json")
    assert json.loads(again.stdout)["comparisons"] == report["comparisons"]
    assert not (output / "runs").exists()

    grown = write_study(tmp_path, nuclei_fixture, seeds=[0, 1, 2])
    planned = ablate(grown, "--output", output, "--dry-run", "--json")
    assert json.loads(planned.stdout) == {"trainings": 6, "cells": 12, "trainings_left": 2, "cells_left": 4}


@pytest.mark.slow
def test_a_training_that_fails_is_named_with_its_log_and_the_others_are_kept(nuclei_fixture: Path, tmp_path: Path) -> None:
    factor = {"key": "train.learning_rate", "levels": [0.001, 1e30]}
    file = write_study(tmp_path, nuclei_fixture, factors=[factor], set=TOY | {"train.bad_steps": 1}, epochs=2)
    result = ablate(file, "--output", tmp_path / "out", "--threads", 1)
    assert result.exit_code == 1 and "2 trainings failed" in result.output and ".log" in result.output
    assert len(list((tmp_path / "out" / "cells").iterdir())) == 2
    assert not (tmp_path / "out" / "report.json").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_study_that_is_killed_goes_on(nuclei_fixture: Path, tmp_path: Path) -> None:
    """Killed after its first cell: what was done is not done again, and the networks are those of an unbroken one."""
    factor = {"key": "loss.box_kind", "levels": ["ciou", "iou"]}
    file = write_study(tmp_path, nuclei_fixture, factors=[factor])
    output = tmp_path / "out"
    words = ["-m", "apex_train.cli.main", "ablate", str(file), "--output", str(output), "--threads", "1"]
    process = subprocess.Popen([sys.executable, *words], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(output.glob("cells/*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in output.glob("cells/*.json")}
    assert kept
    result = _retried(file, output)
    assert result.exit_code == 0, result.output
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    unbroken = ablate(file, "--output", tmp_path / "other", "--threads", 1, "--json")
    assert json.loads(result.stdout)["comparisons"] == json.loads(unbroken.stdout)["comparisons"]
    for run in output.glob("runs/*/last.pt"):
        networks = [load_model(path).state_dict() for path in (run, tmp_path / "other" / "runs" / run.parent.name / "last.pt")]
        assert all(torch.equal(value, networks[1][name]) for name, value in networks[0].items()), run


def _retried(file: Path, output: Path) -> Result:
    """The arm of a killed study may still be at work, and holds its folder."""
    for _ in range(20):
        result = ablate(file, "--output", output, "--threads", 1, "--json")
        if "another run is writing" not in result.output:
            break
        time.sleep(1)
    return result


def test_wrong_usage_is_named(nuclei_fixture: Path, tmp_path: Path) -> None:
    file = write_study(tmp_path, nuclei_fixture, seeds=[0, 1], test="permutation")
    for words, expected in (
        ((tmp_path / "none.yaml", "--output", tmp_path / "out"), "none.yaml"),
        ((file, "--output", tmp_path / "out"), "seeds can give no p below"),
        ((file,), "--output"),
    ):
        result = ablate(*words)
        assert result.exit_code == 2 and expected in result.output, result.output
    missing = write_study(tmp_path, nuclei_fixture)
    result = ablate(missing, "--output", tmp_path / "out", "--log", tmp_path / "no.md")
    assert result.exit_code == 2 and "no.md" in result.output
    assert not (tmp_path / "out").exists()
