"""The loop: it learns, it resumes to the same numbers, it stops at what it cannot repair."""

from __future__ import annotations

import io
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from apex_runtime.data.open import open_dataset
from apex_runtime.errors import ImageError, UsageError
from apex_train.checkpoint import load_model, read_checkpoint
from apex_train.config import RoutingConfig, load_config
from apex_train.engine.average import WeightAverage
from apex_train.engine.schedule import draw_tiles, exploration_bonus, rate_factor
from apex_train.engine.trainer import Trainer, TrainingError

SMALL = {"train.size": 128, "train.crop": 128, "train.batch": 2, "train.workers": 0, "train.epochs": 2, "train.warmup_steps": 1}


def trainer(data: Path, output: Path, **changes) -> Trainer:
    config = load_config(None, SMALL | {key.replace("__", "."): value for key, value in changes.items()})
    return Trainer(config, open_dataset(data, "train"), None, output, Console(file=io.StringIO()))


def freeze_norms(run: Trainer) -> None:
    """Statistics of the running kind, so that equality tests compare the loop and not the rounding of batch means."""
    for module in run.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
            module.train = lambda mode=True: None  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize("workers", [0, 1])
def test_resumed_equals_uninterrupted(nuclei_fixture: Path, tmp_path: Path, workers: int) -> None:
    runs = {}
    for name in ("whole", "first", "second"):  # made just before it runs, for making one sets the random state of the process
        runs[name] = trainer(nuclei_fixture, tmp_path / name, train__workers=workers)
        freeze_norms(runs[name])
        if name == "second":
            runs[name].resume(tmp_path / "first" / "last.pt")
            assert runs[name].epoch == 1 and runs[name].step == 2
        else:
            runs[name].fit(stop_after_epoch=1 if name == "first" else None)
    runs["second"].output = tmp_path / "first"
    runs["second"].fit()
    whole, resumed = (load_model(tmp_path / name / "last.pt").state_dict() for name in ("whole", "first"))
    for key, value in whole.items():
        if value.is_floating_point():
            # Adam turns rounding in a near-zero gradient into a step of up to the learning rate (2e-3) times its noise.
            assert (value - resumed[key]).abs().max() <= 2e-3 * value.abs().max(), key
    assert [line["epoch"] for line in runs["second"].history] == [1, 2]
    logged = [json.loads(line)["epoch"] for line in (tmp_path / "first" / "log.jsonl").read_text().splitlines()]
    assert logged == [1, 2]


def test_it_learns_a_handful_of_images(nuclei_fixture: Path, tmp_path: Path) -> None:
    run = trainer(nuclei_fixture, tmp_path, train__batch=4)
    batch = next(iter(run.loader))
    losses = [run.train_step(batch)["total"] for _ in range(12)]
    assert losses[-1] < 0.75 * losses[0]


def test_every_trained_weight_moves_and_the_average_follows(nuclei_fixture: Path, tmp_path: Path) -> None:
    run = trainer(nuclei_fixture, tmp_path)
    before = {name: parameter.clone() for name, parameter in run.model.named_parameters()}
    batch = next(iter(run.loader))
    for _ in range(3):
        run.train_step(batch)
    still = [name for name, parameter in run.model.named_parameters() if torch.equal(parameter, before[name])]
    assert all(name.startswith("heads.2.") for name in still), still  # no object of these crops is large enough for stride 32
    average = dict(run.average.model.named_parameters())
    assert all(not torch.equal(average[name], value) for name, value in run.model.named_parameters() if name not in still)


def test_a_bad_step_is_counted_and_many_end_the_run(nuclei_fixture: Path, tmp_path: Path) -> None:
    run = trainer(nuclei_fixture, tmp_path, train__bad_steps=3)
    batch = next(iter(run.loader))
    run.train_step(batch)
    weights = run.model.neck.down4[0].weight
    with torch.no_grad():
        kept, bias = weights.clone(), run.model.heads[0].one.bias
        bias.fill_(float("nan"))
    statistics = {name: buffer.clone() for name, buffer in run.model.named_buffers()}
    run.train_step(batch)
    assert run.bad_steps == 1 and torch.equal(weights, kept) and "cls" in run.console.file.getvalue()
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in run.model.named_buffers())
    with pytest.raises(TrainingError, match="3 steps in a row"):
        for _ in range(3):
            run.train_step(batch)


def test_resume_refuses_another_run_and_a_file_without_state(nuclei_fixture: Path, tmp_path: Path) -> None:
    run = trainer(nuclei_fixture, tmp_path)
    run.fit(stop_after_epoch=1)
    with pytest.raises(UsageError, match="another configuration"):
        trainer(nuclei_fixture, tmp_path, train__learning_rate=1e-4).resume(tmp_path / "last.pt")
    with pytest.raises(UsageError, match="no training state"):
        trainer(nuclei_fixture, tmp_path).resume(tmp_path / "best.pt")
    assert "optimizer" in read_checkpoint(tmp_path / "last.pt")["training"]
    train = {"dataset_type": "coco", "split": "train", "images": 5}
    for name in ("last.pt", "best.pt"):
        assert read_checkpoint(tmp_path / name)["data"] == {
            "train": train | {"fingerprint": open_dataset(nuclei_fixture, "train").fingerprint()}
        }


def test_init_takes_what_fits(nuclei_fixture: Path, tmp_path: Path) -> None:
    run = trainer(nuclei_fixture, tmp_path)
    run.fit(stop_after_epoch=1)
    other = trainer(nuclei_fixture, tmp_path / "b", model__prototypes=16)
    report = other.initialise(tmp_path / "best.pt")
    assert "reshaped" in report
    ours, theirs = other.model.state_dict(), run.average.model.state_dict()
    assert torch.equal(ours["neck.down4.0.weight"], theirs["neck.down4.0.weight"])


def test_the_average_is_an_exponential_mean() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = WeightAverage(model, 0.5)
    expected = 0.0
    for step in range(1, 6):
        nn.init.constant_(model.weight, float(step))
        average.update(model)
        share = 1 - min(0.5, (1 + step) / (10 + step))
        expected += share * (step - expected)
    assert float(average.model.weight) == pytest.approx(expected)


def test_the_rate_warms_up_and_falls() -> None:
    factors = [rate_factor(step, 100, 10, 0.05) for step in range(100)]
    assert factors[0] == 0.1 and max(factors) == factors[10] == 1.0
    assert factors[10:] == sorted(factors[10:], reverse=True) and factors[-1] == pytest.approx(0.05, abs=0.01)


def test_tiles_of_a_step() -> None:
    config, rng = RoutingConfig(all_tiles=0.5, keep_all=0.3, min_share=0.25), np.random.default_rng(0)
    assert {draw_tiles(step, 1000, 16, config, rng) for step in range(500)} == {16}
    later = [draw_tiles(step, 1000, 16, config, rng) for step in range(500, 1000)]
    assert set(later) == set(range(4, 17)) and 0.3 < later.count(16) / 500 < 0.45
    bonus = exploration_bonus(3, 16, 8, 0.25, rng)
    assert ((bonus == 24).sum(1) == 2).all() and not exploration_bonus(3, 16, 16, 0.25, rng).any()


def test_one_poisoned_step_leaves_no_trace(nuclei_fixture: Path, tmp_path: Path) -> None:
    run = trainer(nuclei_fixture, tmp_path)
    batch = next(iter(run.loader))
    run.train_step(batch)
    whole = run.model.normalise
    run.model.normalise = lambda images: whole(images) * float("nan")  # type: ignore[method-assign]
    run.train_step(batch)
    run.model.normalise = whole  # type: ignore[method-assign]
    run.train_step(batch)
    assert run.bad_steps == 1
    for model in (run.model, run.average.model):
        assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def test_a_broken_validation_image_costs_no_epoch(nuclei_fixture: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(nuclei_fixture, data)
    val = open_dataset(data, "val")
    val.records[0].path.write_bytes(val.records[0].path.read_bytes()[:200])
    config = load_config(None, SMALL | {"train.evaluate_every": 1})
    run = Trainer(config, open_dataset(data, "train"), val, tmp_path / "run", Console(file=io.StringIO()))
    with pytest.raises(ImageError, match=val.records[0].path.name):
        run.fit()
    assert read_checkpoint(tmp_path / "run" / "last.pt")["training"]["epoch"] == 1
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_training_image_is_named(nuclei_fixture: Path, tmp_path: Path, workers: int) -> None:
    data = tmp_path / "data"
    shutil.copytree(nuclei_fixture, data)
    train = open_dataset(data, "train")
    train.records[0].path.write_bytes(b"not an image")
    config = load_config(None, SMALL | {"train.batch": 5, "train.workers": workers})
    run = Trainer(config, train, None, tmp_path / "run", Console(file=io.StringIO()))
    with pytest.raises(ImageError, match=train.records[0].path.name) as caught:
        run.fit()
    assert "Traceback" not in str(caught.value)


def test_a_val_split_without_objects_is_no_val_split(nuclei_fixture: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(nuclei_fixture, data)
    file = data / "annotations" / "val.json"
    document = json.loads(file.read_text())
    file.write_text(json.dumps(document | {"annotations": []}))
    run = Trainer(
        load_config(None, SMALL),
        open_dataset(data, "train"),
        open_dataset(data, "val"),
        tmp_path / "run",
        Console(file=io.StringIO()),
    )
    assert run.val_set is None
    run.fit(stop_after_epoch=1)
    first = load_model(tmp_path / "run" / "best.pt").state_dict()
    run.fit()
    assert any(
        not torch.equal(value, first[name]) for name, value in load_model(tmp_path / "run" / "best.pt").state_dict().items()
    )


def test_a_wish_to_stop_keeps_the_finished_epochs(nuclei_fixture: Path, tmp_path: Path) -> None:
    run = trainer(nuclei_fixture, tmp_path)
    stop = threading.Event()
    steps = run.train_step

    def third(batch):
        if run.step == 2:
            stop.set()
        return steps(batch)

    run.train_step = third  # type: ignore[method-assign]
    run.fit(stop=stop)
    assert run.step == 3 and run.epoch == 1
    assert read_checkpoint(tmp_path / "last.pt")["training"]["epoch"] == 1
