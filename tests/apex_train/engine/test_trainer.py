"""The loop: it learns, it resumes to the same numbers, it stops at what it cannot repair."""

from __future__ import annotations

import io
import json
import shutil
import threading
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from apex_runtime.data.open import open_dataset
from apex_runtime.errors import ConfigError, ImageError, UsageError
from apex_train.checkpoint import load_model, read_checkpoint, save_checkpoint
from apex_train.config import load_config
from apex_train.engine import trainer as trainer_module
from apex_train.engine.average import WeightAverage
from apex_train.engine.device import Placement
from apex_train.engine.evaluate import DivergedError, evaluate_weights
from apex_train.engine.state import keep_as, prune_epochs
from apex_train.engine.trainer import Trainer, TrainingError
from apex_train.mining.own_loss import own_loss

SMALL = {"train.size": 128, "train.crop": 128, "train.batch": 2, "train.workers": 0, "train.epochs": 2, "train.warmup_steps": 1}


def trainer(data: Path, output: Path, **changes) -> Trainer:
    config = load_config(None, SMALL | {key.replace("__", "."): value for key, value in changes.items()})
    return Trainer(config, open_dataset(data, "train"), None, output, Console(file=io.StringIO()))


EXACT = {"train__norm_statistics": "frozen"}  # equality tests compare the loop, and not the rounding of batch means


def worst_difference(a: Path, b: Path) -> float:
    """The largest |difference| of two checkpoints' averaged and raw weights, over the largest value of the weight."""
    first, second = (read_checkpoint(path) for path in (a, b))
    pairs = [(first["model"], second["model"]), (first["training"]["raw_model"], second["training"]["raw_model"])]
    return max(
        float((one[key] - other[key]).abs().max() / one[key].abs().max().clamp(min=1e-12))
        for one, other in pairs
        for key in one
        if one[key].is_floating_point()
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_four_epochs_are_two_and_two_more(nuclei_fixture: Path, tmp_path: Path, workers: int) -> None:
    options = EXACT | {"train__workers": workers, "train__epochs": 4}
    trainer(nuclei_fixture, tmp_path / "whole", **options).fit()
    trainer(nuclei_fixture, tmp_path / "parts", **options).fit(stop_after_epoch=2)
    second = trainer(nuclei_fixture, tmp_path / "parts", **options)
    second.resume(tmp_path / "parts" / "last.pt")
    assert second.epoch == 2 and second.step == 4
    second.fit()
    assert worst_difference(tmp_path / "whole" / "last.pt", tmp_path / "parts" / "last.pt") <= 1e-6
    whole, parts = ([json.loads(line) for line in (tmp_path / name / "log.jsonl").open()] for name in ("whole", "parts"))
    assert [line["epoch"] for line in parts] == [1, 2, 3, 4]
    for one, other in zip(whole, parts, strict=True):
        assert one["total"] == pytest.approx(other["total"], rel=1e-6) and one["step"] == other["step"]


def test_a_run_stopped_within_an_epoch_goes_on_from_its_step(nuclei_fixture: Path, tmp_path: Path) -> None:
    options = EXACT | {"train__batch": 1, "train__epochs": 1}
    trainer(nuclei_fixture, tmp_path / "whole", **options).fit()
    first = trainer(nuclei_fixture, tmp_path / "parts", **options)
    stop_at(first, 3)
    second = trainer(nuclei_fixture, tmp_path / "parts", **options)
    second.resume(tmp_path / "parts" / "last.pt")
    assert (second.epoch, second.batch_in_epoch, second.step) == (0, 3, 3)
    second.fit()
    assert worst_difference(tmp_path / "whole" / "last.pt", tmp_path / "parts" / "last.pt") <= 1e-6
    whole, parts = (json.loads((tmp_path / name / "log.jsonl").read_text()) for name in ("whole", "parts"))
    assert whole["total"] == pytest.approx(parts["total"], rel=1e-5)  # the mean is over the steps of both sittings


def stop_at(run: Trainer, step: int) -> None:
    """Fit, with the wish to stop uttered during this step (1-based)."""
    stop, inner = threading.Event(), run.train_step

    def watched(batch):
        if run.step == step - 1:
            stop.set()
        return inner(batch)

    run.train_step = watched  # type: ignore[method-assign]
    run.fit(stop=stop)


def test_it_learns_a_handful_of_images(nuclei_fixture: Path, tmp_path: Path) -> None:
    run = trainer(nuclei_fixture, tmp_path, train__batch=4)
    batch = next(iter(run.loader))
    losses = [run.train_step(batch)["total"] for _ in range(12)]
    assert losses[-1] < 0.75 * losses[0]


def test_bf16_learns_what_fp32_does(nuclei_fixture: Path, tmp_path: Path) -> None:
    runs = [trainer(nuclei_fixture, tmp_path / amp, train__amp=amp, train__crop=64, train__batch=4) for amp in ("off", "bf16")]
    batch = next(iter(runs[0].loader))
    losses = [[run.train_step(batch)["total"] for _ in range(6)] for run in runs]
    assert losses[1][0] == pytest.approx(losses[0][0], rel=0.02) and losses[1][0] != losses[0][0]
    assert losses[1][-1] < 0.9 * losses[1][0]
    assert all(parameter.dtype == torch.float32 for parameter in runs[1].model.parameters())


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
    with pytest.raises(UsageError, match=r"a run with train.learning_rate 0.002 \(now 0.0001\)\."):
        trainer(nuclei_fixture, tmp_path, train__learning_rate=1e-4, train__workers=1).resume(tmp_path / "last.pt")
    other = open_dataset(nuclei_fixture, "val")
    with pytest.raises(UsageError, match=r"a run with another split train\."):
        Trainer(run.config, other, None, tmp_path, run.console).resume(tmp_path / "last.pt")
    save_checkpoint(tmp_path / "weights.pt", run.model, run.model_config)
    with pytest.raises(UsageError, match="no training state"):
        trainer(nuclei_fixture, tmp_path).resume(tmp_path / "weights.pt")
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


def test_a_val_split_without_objects_is_measured_by_its_loss(nuclei_fixture: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(nuclei_fixture, data)
    file = data / "annotations" / "val.json"
    document = json.loads(file.read_text())
    file.write_text(json.dumps(document | {"annotations": []}))
    sets = open_dataset(data, "train"), open_dataset(data, "val")
    config = load_config(None, SMALL | {"train.evaluate_every": 1})
    run = Trainer(config, *sets, tmp_path / "run", Console(file=io.StringIO()))
    run.fit(stop_after_epoch=1)
    assert run.selection.metric == "val_loss" and run.selection.best == run.history[0]["val_loss"] > 0


def test_without_val_the_newest_epoch_is_the_best(nuclei_fixture: Path, tmp_path: Path) -> None:
    run = trainer(nuclei_fixture, tmp_path)
    run.fit(stop_after_epoch=1)
    first = load_model(tmp_path / "best.pt").state_dict()
    run.fit()
    second = load_model(tmp_path / "best.pt").state_dict()
    assert any(not torch.equal(value, first[name]) for name, value in second.items())


def test_a_wish_to_stop_loses_nothing(nuclei_fixture: Path, tmp_path: Path) -> None:
    run = trainer(nuclei_fixture, tmp_path)
    stop_at(run, 3)
    assert (run.step, run.epoch) == (3, 1) and not run.finished
    state = read_checkpoint(tmp_path / "last.pt")["training"]
    assert (state["epoch"], state["batch_in_epoch"], state["step"]) == (1, 1, 3)


def test_epoch_files_are_bounded_and_every_checkpoint_is_whole(nuclei_fixture: Path, tmp_path: Path) -> None:
    trainer(nuclei_fixture, tmp_path, train__epochs=4, train__keep_epochs=2).fit()
    names = {path.name for path in tmp_path.glob("*.pt")}
    assert names == {"best.pt", "last.pt", "epoch_0003.pt", "epoch_0004.pt"}
    for name in names:
        content = read_checkpoint(tmp_path / name)
        assert content["training"]["epoch"] == (3 if name == "epoch_0003.pt" else 4)
        assert {"optimizer", "scheduler", "scaler", "rng", "raw_model", "history", "config"} <= content["training"].keys()
        assert content["training"]["history"][0]["memory"]["micro_batch"] == 2  # metadata comes back as data


@pytest.mark.parametrize("kept", [0, 1, 3, 9])
def test_the_newest_epochs_are_kept_as_many_as_asked_for(tmp_path: Path, kept: int) -> None:
    for number in (9997, 9998, 9999, 10000, 10001):
        (tmp_path / f"epoch_{number}.pt").touch()
        prune_epochs(tmp_path, kept)
    newest = [f"epoch_{number}.pt" for number in (10001, 10000, 9999, 9998, 9997)][:kept]
    assert {path.name for path in tmp_path.iterdir()} == set(newest)


def test_a_checkpoint_that_has_its_second_name_already_leaves_no_third(tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes(b"weights")
    for _ in range(2):
        keep_as(tmp_path, "best.pt")
        assert {path.name for path in tmp_path.iterdir()} == {"best.pt", "last.pt"}


def test_weights_that_are_not_finite_end_the_run_with_what_to_do(nuclei_fixture: Path, tmp_path: Path) -> None:
    sets = open_dataset(nuclei_fixture, "train"), open_dataset(nuclei_fixture, "val")
    run = Trainer(load_config(None, SMALL), *sets, tmp_path, Console(file=io.StringIO()))
    with torch.no_grad():
        run.average.model.neck.down4[0].weight.fill_(float("nan"))
    with pytest.raises(DivergedError, match="diverged") as caught:
        evaluate_weights(run.average.model, run.val_set, run.config, "mAP_segm", run.peers)
    assert "train.learning_rate" in caught.value.remedy and "export" not in str(caught.value)


def test_a_signal_to_another_process_interrupts_this_one(nuclei_fixture: Path, tmp_path: Path) -> None:
    run = trainer(nuclei_fixture, tmp_path)
    run.peers.any = lambda flags: [True] if flags == [False] else list(flags)  # type: ignore[method-assign]
    run.governor._agree = list
    run.fit()
    assert run.interrupted and not run.finished and (tmp_path / "last.pt").is_file()


def test_all_processes_go_down_the_same_rungs(nuclei_fixture: Path, tmp_path: Path) -> None:
    config = load_config(None, SMALL | {"train.batch": 5})
    places = [Placement(torch.device("cpu"), rank, 2) for rank in (0, 1)]
    train = open_dataset(nuclei_fixture, "train")
    runs = [Trainer(config, train, None, tmp_path, Console(file=io.StringIO()), place) for place in places]
    assert [run.governor.plan.micro_batch for run in runs] == [3, 3]
    assert [run.sampler.rows for run in runs] == [slice(0, 3), slice(3, 5)]


def test_the_best_epoch_is_kept_and_patience_ends_the_run(nuclei_fixture: Path, tmp_path: Path, monkeypatch) -> None:
    figures = iter([0.2, 0.5, 0.4, float("nan"), 0.45, 0.9])
    monkeypatch.setattr(trainer_module, "evaluate_weights", lambda *_: {"mAP_segm": next(figures)})
    config = load_config(None, SMALL | {"train.epochs": 6, "train.evaluate_every": 1, "train.patience": 3})
    sets = open_dataset(nuclei_fixture, "train"), open_dataset(nuclei_fixture, "val")
    run = Trainer(config, *sets, tmp_path, Console(file=io.StringIO()))
    run.fit()
    assert run.epoch == 5 and run.finished and "stopped early" in run.console.file.getvalue()
    best = read_checkpoint(tmp_path / "best.pt")
    assert best["training"]["epoch"] == 2 and best["training"]["selection"]["best"] == 0.5
    later = load_model(tmp_path / "last.pt").state_dict()  # the weights of the best epoch are a copy, not the live ones
    assert any(not torch.equal(later[key], value) for key, value in best["model"].items())


def test_what_a_kill_cut_off_is_made_good(nuclei_fixture: Path, tmp_path: Path) -> None:
    """Killed between the first save of an epoch and its measurement."""
    sets = open_dataset(nuclei_fixture, "train"), open_dataset(nuclei_fixture, "val")
    config = load_config(None, SMALL | {"train.evaluate_every": 1})
    run = Trainer(config, *sets, tmp_path, Console(file=io.StringIO()))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    run._conclude = killed  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run.fit()
    (tmp_path / ".123.456.part").write_bytes(b"half")
    again = Trainer(config, *sets, tmp_path, Console(file=io.StringIO()))
    again.resume(tmp_path / "last.pt")
    again.fit()
    assert [("mAP_segm" in line) for line in again.history] == [True, True]
    assert not list(tmp_path.glob(".*.part"))
    assert read_checkpoint(tmp_path / "best.pt")["training"]["epoch"] == again.selection.best_epoch


def test_a_key_that_is_younger_than_the_checkpoint_had_its_default(nuclei_fixture: Path, tmp_path: Path) -> None:
    trainer(nuclei_fixture, tmp_path).fit(stop_after_epoch=1)
    content = torch.load(tmp_path / "last.pt", weights_only=True)
    del content["training"]["config"]["routing"]["share"]
    torch.save(content, tmp_path / "last.pt")
    trainer(nuclei_fixture, tmp_path).resume(tmp_path / "last.pt")
    with pytest.raises(UsageError, match=r"routing.share 0.25 \(now 0.5\)"):
        trainer(nuclei_fixture, tmp_path, routing__share=0.5).resume(tmp_path / "last.pt")
    del content["training"]["config"]["loss"]["mask_region"]  # what runs did then is no default any more
    torch.save(content, tmp_path / "last.pt")
    trainer(nuclei_fixture, tmp_path, loss__mask_region="wide").resume(tmp_path / "last.pt")
    with pytest.raises(UsageError, match=r'loss.mask_region "wide" \(now "box"\)'):
        trainer(nuclei_fixture, tmp_path).resume(tmp_path / "last.pt")
    assert own_loss(tmp_path / "last.pt").mask_region == "wide"


def test_the_router_alone_learns_and_nothing_else_moves(nuclei_fixture: Path, tmp_path: Path) -> None:
    run = trainer(nuclei_fixture, tmp_path, train__only="router", routing__all_tiles=0, train__warmup_steps=0)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.fit()
    after = read_checkpoint(tmp_path / "best.pt")
    moved = {name for name, value in run.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {f"router.score.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
    assert all(torch.equal(after["model"][name], value) for name, value in before.items() if name not in moved)
    assert after["training"]["epoch"] == 2  # the newest


def test_the_router_alone_has_no_conflicts_to_settle() -> None:
    with pytest.raises(ConfigError, match=r"loss.pcgrad.*train.only"):
        load_config(None, {"train.only": "router", "loss.pcgrad": True})


def test_the_router_alone_needs_a_network_that_fits(nuclei_fixture: Path, tmp_path: Path) -> None:
    run = trainer(nuclei_fixture, tmp_path, train__only="router")
    other = trainer(nuclei_fixture, tmp_path / "other", model__prototypes=16)
    save_checkpoint(tmp_path / "other.pt", other.model, other.model_config)
    with pytest.raises(UsageError, match="would never be learned"):
        run.initialise(tmp_path / "other.pt")


def test_a_checkpoint_of_another_network_is_not_resumed(nuclei_fixture: Path, tmp_path: Path) -> None:
    trainer(nuclei_fixture, tmp_path, train__epochs=1).fit()
    content = read_checkpoint(tmp_path / "last.pt")
    content["training"]["raw_model"]["router.score.0.weight"] = torch.zeros(32, 128)
    torch.save(content, tmp_path / "old.pt")
    with pytest.raises(UsageError, match="another version"):
        trainer(nuclei_fixture, tmp_path, train__epochs=1).resume(tmp_path / "old.pt")
