"""A curriculum and a limit of costs within a run: they change what is learned, and a resumed run is one that never stopped."""

from __future__ import annotations

import io
import json
import shutil
import threading
from pathlib import Path

import pytest
import torch
from rich.console import Console

from apex_runtime.data.open import open_dataset
from apex_train.checkpoint import read_checkpoint
from apex_train.config import load_config
from apex_train.engine.trainer import Trainer

SMALL = {"train.size": 64, "train.crop": 64, "train.batch": 2, "train.workers": 0, "train.epochs": 2, "train.warmup_steps": 1}
LABELS = {"loss.oracle": 0, "labels.first": 0.5, "labels.last": 0.9, "labels.clip": 1.5}


@pytest.fixture
def weighted(nuclei_fixture: Path, tmp_path: Path) -> Path:
    data = shutil.copytree(nuclei_fixture, tmp_path / "set")
    file = data / "annotations" / "train.json"
    document = json.loads(file.read_text())
    for entry in document["annotations"]:
        entry["weight"] = 1 / (1 + entry["id"] % 7)
    file.write_text(json.dumps(document))
    return data


def run_of(data: Path, output: Path, **changes: object) -> Trainer:
    config = load_config(None, SMALL | LABELS | {key.replace("__", "."): value for key, value in changes.items()})
    return Trainer(config, open_dataset(data, "train"), None, output, Console(file=io.StringIO()))


def test_a_resumed_run_is_one_that_never_stopped_to_the_bit(weighted: Path, tmp_path: Path) -> None:
    whole = run_of(weighted, tmp_path / "whole")
    whole.fit()
    first, stop = run_of(weighted, tmp_path / "parts"), threading.Event()
    inner = first.train_step

    def stopping(batch):
        if first.step == 2:
            stop.set()
        return inner(batch)

    first.train_step = stopping  # type: ignore[method-assign]
    first.fit(stop=stop)
    assert first.step == 3
    second = run_of(weighted, tmp_path / "parts")
    second.resume(tmp_path / "parts" / "last.pt")
    assert second.stepper.limit is not None and second.stepper.limit.median == first.stepper.limit.median > 0  # type: ignore[union-attr]
    second.fit()
    one, other = (read_checkpoint(tmp_path / name / "last.pt") for name in ("whole", "parts"))
    assert one["training"]["limit"] == other["training"]["limit"]
    for name, value in one["training"]["raw_model"].items():
        assert torch.equal(value, other["training"]["raw_model"][name]), name
    line = json.loads((tmp_path / "whole" / "log.jsonl").read_text().splitlines()[-1])
    assert 0 < line["damped"] <= line["above_median"] < 1 and line["object_cost"] > 0


def test_micro_batches_change_nothing_but_rounding(weighted: Path, tmp_path: Path) -> None:
    terms = []
    for micro in (2, 1):
        run = run_of(weighted, tmp_path / str(micro), train__micro_batch=micro, train__norm_statistics="frozen")
        assert run.stepper.limit is not None
        run.stepper.limit.median = 0.5
        terms.append(run.train_step(next(iter(run.loader))) | {"median": run.stepper.limit.median})
    for key in ("cls", "box", "mask_bce", "object_cost", "above_median", "damped", "median"):
        assert terms[0][key] == pytest.approx(terms[1][key], rel=1e-4)
    assert terms[0]["damped"] > 0


def test_both_change_what_a_step_costs_and_old_recipes_have_neither(weighted: Path, tmp_path: Path) -> None:
    off = {"labels__first": 1.0, "labels__last": 1.0, "labels__clip": 0.0}
    ways = [off, off | {"labels__first": 0.5}, off | {"labels__clip": 1.0}]
    boxes = []
    for number, way in enumerate(ways):
        run = run_of(weighted, tmp_path / str(number), **way)
        assert (run.stepper.limit is None) == (way["labels__clip"] == 0.0)
        if run.stepper.limit is not None:
            run.stepper.limit.median = 1.0
        boxes.append(run.train_step(next(iter(run.loader)))["box"])
    assert boxes[1] < boxes[0] and boxes[2] < boxes[0]
    assert "damped" not in run_of(weighted, tmp_path / "off", **off).stepper.reported
