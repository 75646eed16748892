"""``apex-train fit``: data -> checkpoint."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apex_runtime.cli.options import dataset_type_option
from apex_runtime.errors import ApexError

if TYPE_CHECKING:
    from apex_runtime.data.dataset import DatasetType, InstanceDataset
    from apex_train.config import FitConfig


class Interrupted(ApexError):
    """The run was stopped by the user; what is finished is kept."""


@click.command()
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="A COCO, YOLO or satellite data set.")
@dataset_type_option
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), help="Folder of the run: checkpoints, log, configuration."
)
@click.option("--epochs", type=click.IntRange(min=1), help="Epochs of the whole run (train.epochs).")
@click.option("--init", type=click.Path(path_type=Path), help="Start from the weights of this checkpoint, also to other classes.")
@click.option("--resume", is_flag=True, help="Go on from OUTPUT/last.pt.")
@click.option("--stop-after-epoch", type=click.IntRange(min=1), help="Stop after this epoch; --resume goes on later.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Override one configuration value; repeatable.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads (default: all cores).")
@click.option("--json", "as_json", is_flag=True, help="Print the last line of the log as JSON on standard output.")
def fit(
    config: Path | None,
    data: Path,
    dataset_type: DatasetType | None,
    output: Path,
    epochs: int | None,
    init: Path | None,
    resume: bool,
    stop_after_epoch: int | None,
    assignments: tuple[str, ...],
    threads: int | None,
    as_json: bool,
) -> None:
    """Train a detector. CONFIG is an optional YAML file; without it the defaults are used.

    \b
    Examples:
      apex-train fit --data nuclei/ --output runs/a
      apex-train fit recipe.yaml --data nuclei/ --output runs/b --epochs 20 --set train.batch=8
      apex-train fit --data nuclei/ --output runs/a --resume
      apex-train fit --data roofs/ --output runs/c --init runs/a/best.pt
      apex-train fit --data vehicles/data.yaml --dataset-type yolo --output runs/d
    """
    from apex_runtime.errors import UsageError
    from apex_train.config import load_config, parse_assignment

    overrides = dict(parse_assignment(text) for text in assignments)
    if dataset_type is not None:
        overrides["train.dataset_type"] = dataset_type
    if epochs is not None:
        overrides["train.epochs"] = epochs
    run = load_config(config, overrides)
    if resume and init is not None:
        raise UsageError("--init and --resume: a resumed run has its weights.", "Give one of them.")
    _check_output(output, resume)
    train, val = _open_data(data, run.train.dataset_type)
    last = _train(run, train, val, output, init, resume, stop_after_epoch, threads, as_json)
    if as_json:
        import json

        click.echo(json.dumps(last))


def _check_output(output: Path, resume: bool) -> None:
    from apex_runtime.errors import UsageError

    last = output / "last.pt"
    if resume and not last.is_file():
        raise UsageError(f"--resume: {last} does not exist.", "Leave --resume out to start the run.", path=last)
    if not resume and last.exists():
        raise UsageError(f"{output}: already holds a run.", "Go on with --resume, or choose another --output.", path=output)


def _open_data(data: Path, kind: DatasetType | None) -> tuple[InstanceDataset, InstanceDataset | None]:
    from apex_runtime.cli.data import choose_type, say_left_out
    from apex_runtime.data.open import open_dataset, split_names
    from apex_runtime.errors import DataError

    kind = choose_type(data, kind)
    train = open_dataset(data, "train", kind)
    val = open_dataset(data, "val", kind) if "val" in split_names(data, kind) else None
    if val is not None and val.categories != train.categories:
        raise DataError(f"{val.source}: its categories differ from those of {train.source}.", "Use the same list in both.")
    say_left_out(train, val)
    if not any((~train.instances(index).crowd).any() for index in range(len(train))):
        raise DataError(
            f"{train.source}: the split train has no object to learn from.",
            "Are the labels where they are looked for? `apex-train preflight` says what it finds.",
            path=train.source,
        )
    return train, val


def _train(
    run: FitConfig,
    train: InstanceDataset,
    val: InstanceDataset | None,
    output: Path,
    init: Path | None,
    resume: bool,
    stop_after_epoch: int | None,
    threads: int | None,
    as_json: bool,
) -> dict[str, Any]:
    import torch
    from rich.console import Console

    from apex_runtime.cli.interrupt import interruptible
    from apex_train.engine.trainer import Trainer

    if threads is not None:
        torch.set_num_threads(threads)
    console = Console(stderr=as_json)
    trainer = Trainer(run, train, val, output, console)
    say = functools.partial(console.print, highlight=False, soft_wrap=True)
    if init is not None:
        say(f"weights of {init}: {trainer.initialise(init)}")
    if resume:
        trainer.resume(output / "last.pt")
        say(f"resumed at epoch {trainer.epoch}, step {trainer.step}")
    if trainer.val_set is None:
        say("no val split with objects: nothing is measured, best.pt is the newest epoch")
    with interruptible("stopping after this step; Ctrl-C again to stop at once") as stop:
        last = trainer.fit(stop_after_epoch, stop)
    if stop.is_set():
        remedy = "Go on with --resume." if trainer.epoch else "Start it again: no epoch was finished."
        raise Interrupted(f"stopped in epoch {trainer.epoch + 1}; {trainer.epoch} finished epochs are kept.", remedy)
    say("done: " + ", ".join(str(output / name) for name in ("best.pt", "last.pt", "log.jsonl")))
    return last
