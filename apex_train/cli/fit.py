"""``apex-train fit``: data -> checkpoint."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apex_runtime.cli.options import dataset_type_option
from apex_runtime.errors import ApexError, UsageError
from apex_train.cli.run_folder import Resume, check_output, hold_folder

if TYPE_CHECKING:
    from rich.console import Console

    from apex_runtime.data.dataset import DatasetType, InstanceDataset
    from apex_train.config import FitConfig
    from apex_train.engine.distributed import Peers
    from apex_train.engine.trainer import Trainer


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
@click.option(
    "--auto-resume", is_flag=True, help="Go on from OUTPUT/last.pt if there is one, else start; for restarts by a launcher."
)
@click.option("--stop-after-epoch", type=click.IntRange(min=1), help="Stop after this epoch; --resume goes on later.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Override one configuration value; repeatable.")
@click.option("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:1, or ddp under torchrun.  [default: auto]")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads (default: all cores).")
@click.option("--report/--no-report", default=True, show_default=True, help="Measure the split test at the end.")
@click.option("--json", "as_json", is_flag=True, help="Print the last line of the log as JSON on standard output.")
def fit(
    config: Path | None,
    data: Path,
    dataset_type: DatasetType | None,
    output: Path,
    epochs: int | None,
    init: Path | None,
    resume: bool,
    auto_resume: bool,
    stop_after_epoch: int | None,
    assignments: tuple[str, ...],
    device: str | None,
    threads: int | None,
    report: bool,
    as_json: bool,
) -> None:
    """Train a detector. CONFIG is a YAML file or the name of a shipped recipe; without it the defaults are used.

    At the end the best checkpoint is measured on the split test, once, and report.md says how the run went.

    \b
    Examples:
      apex-train fit --data nuclei/ --output runs/a
      apex-train fit recipe.yaml --data nuclei/ --output runs/b --epochs 20 --set train.batch=8
      apex-train fit --data nuclei/ --output runs/a --resume
      apex-train fit --data roofs/ --output runs/c --init runs/a/best.pt
      apex-train fit aerial-vehicles --data vehicles/data.yaml --dataset-type yolo --output runs/d
      torchrun --nproc-per-node 4 --no-python apex-train fit --data nuclei/ --output runs/e --device ddp

    \b
    On each of two hosts; what was killed goes on by itself:
      torchrun --nnodes 2 --nproc-per-node 4 --max-restarts 3 --rdzv-backend c10d --rdzv-endpoint host-a:29400 \
        --no-python apex-train fit --data nuclei/ --output runs/f --device ddp --auto-resume
    """

    run = configuration(config, assignments, {"dataset_type": dataset_type, "epochs": epochs, "device": device})
    if resume and init is not None:
        raise UsageError("--init and --resume: a resumed run has its weights.", "Give one of them, or --init and --auto-resume.")
    if resume and auto_resume:
        raise UsageError("--resume and --auto-resume: the first wants a run to go on with.", "Give one of them.")
    wanted: Resume = "auto" if auto_resume else "yes" if resume else "no"
    last = _run(run, data, output, init, wanted, stop_after_epoch, threads, report, as_json)
    if as_json and last is not None:
        import json

        click.echo(json.dumps(last))


def configuration(config: Path | None, assignments: tuple[str, ...], flags: dict[str, Any]) -> FitConfig:
    """The file or the shipped recipe of that name, then ``--set``, then the flags that were given."""
    from apex_train.config import load_config, parse_assignment
    from apex_train.recipes import recipe_path

    overrides = dict(parse_assignment(text) for text in assignments)
    overrides |= {f"train.{name}": value for name, value in flags.items() if value is not None}
    if config is not None and not config.exists():
        config = recipe_path(str(config)) or config
    return load_config(config, overrides)


def _run(
    run: FitConfig,
    data: Path,
    output: Path,
    init: Path | None,
    resume: Resume,
    stop_after_epoch: int | None,
    threads: int | None,
    report: bool,
    as_json: bool,
) -> dict[str, Any] | None:
    """Train, and report when the run is at its end; the last line of the log, in the process that leads.

    Whatever may fail in one process of several is done after they have met, so that the others end with it.
    """
    import torch
    from rich.console import Console

    from apex_train.engine.device import resolve_device
    from apex_train.engine.distributed import Peers, process_group

    if threads is not None:
        torch.set_num_threads(threads)
    placement = resolve_device(run.train.device)
    console = Console(stderr=as_json, quiet=not placement.leads)
    peers = Peers(placement)
    with contextlib.ExitStack() as held:
        with process_group(placement, run.train.peer_timeout):
            peers.in_leader(lambda: check_output(output, resume))
            train, val, test = peers.together(lambda: open_data(data, run.train.dataset_type))
            going_on = peers.in_leader(lambda: hold_folder(output, resume, held))
            trainer = _train(run, train, val, output, init, going_on, stop_after_epoch, console, peers)
        if not placement.leads:
            return None
        return _conclude(run, trainer, test, output, console, report)


def _conclude(
    run: FitConfig, trainer: Trainer, test: InstanceDataset | None, output: Path, console: Console, report: bool
) -> dict[str, Any]:
    """The report of a run that is at its end, where one is asked for; the last line of the log."""
    from apex_train.report.report import write_report

    names = ["best.pt", "last.pt", "log.jsonl"]
    if trainer.finished and report:
        names.append(
            write_report(
                output,
                run,
                trainer.history,
                trainer.selection.metric or "",
                trainer.data,
                test,
                trainer.placement.device,
                console,
            ).name
        )
    console.print("done: " + ", ".join(str(output / name) for name in names), highlight=False, soft_wrap=True)
    return trainer.history[-1]


def open_data(data: Path, kind: DatasetType | None) -> tuple[InstanceDataset, InstanceDataset | None, InstanceDataset | None]:
    """The splits train, val and test; the last two where they are."""
    from apex_runtime.cli.data import choose_type, say_left_out
    from apex_runtime.data.open import open_dataset, split_names
    from apex_runtime.errors import DataError

    kind = choose_type(data, kind)
    train = open_dataset(data, "train", kind)
    names = split_names(data, kind)
    val, test = (open_dataset(data, name, kind) if name in names else None for name in ("val", "test"))
    if val is not None and val.categories != train.categories:
        raise DataError(f"{val.source}: its categories differ from those of {train.source}.", "Use the same list in both.")
    say_left_out(train, val)
    if not any((~train.instances(index).crowd).any() for index in range(len(train))):
        raise DataError(
            f"{train.source}: the split train has no object to learn from.",
            "Are the labels where they are looked for? `apex-train preflight` says what it finds.",
            path=train.source,
        )
    return train, val, test


def _train(
    run: FitConfig,
    train: InstanceDataset,
    val: InstanceDataset | None,
    output: Path,
    init: Path | None,
    resume: bool,
    stop_after_epoch: int | None,
    console: Console,
    peers: Peers,
) -> Trainer:
    from apex_runtime.cli.interrupt import interruptible
    from apex_train.engine.agreement import check_agreement, check_newest
    from apex_train.engine.trainer import Trainer

    trainer = peers.together(lambda: Trainer(run, train, val, output, console, peers.placement))
    say = functools.partial(console.print, highlight=False, soft_wrap=True)
    if run.train.only == "router" and init is None and not resume:
        raise UsageError("train.only: router would leave all other weights random.", "Give a trained network with --init.")
    check_agreement(peers, run, lambda: trainer.data, init)
    check_newest(peers, output / "last.pt")
    if init is not None and not resume:
        say(f"weights of {init}: {peers.together(functools.partial(trainer.initialise, init))}")
    if resume:
        trainer.resume(output / "last.pt")
        at_end = trainer.epoch >= run.train.epochs
        say(f"{'the run is at its end:' if at_end else 'resumed at'} epoch {trainer.epoch + (not at_end)}, step {trainer.step}")
    if trainer.selection.metric is None:
        why = "no val split" if trainer.val_set is None else "the router changes no figure that is taken with all tiles"
        say(f"{why}: nothing is measured, best.pt is the newest epoch")
    with interruptible("stopping after this step; Ctrl-C again to stop at once") as stop:
        trainer.fit(stop_after_epoch, stop)
    if trainer.interrupted and not trainer.finished:  # by a signal to any of the processes
        raise Interrupted(f"stopped in epoch {trainer.epoch + 1}, step {trainer.step} is saved.", "Go on with --resume.")
    return trainer
