"""``apex-train self-train``: rounds of training on few labelled images and many without labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apex_runtime.cli.options import FiniteRange, dataset_type_option, json_option, not_empty
from apex_train.cli.label_options import SHARE, choice_of, label_options

if TYPE_CHECKING:
    from rich.console import Console

    from apex_runtime.data.dataset import InstanceDataset
    from apex_train.config import FitConfig
    from apex_train.pseudo.pictures import Pictures
    from apex_train.selftrain.pool import Pool
    from apex_train.selftrain.rounds import Rounds
    from apex_train.selftrain.setting import Setting


@click.command("self-train")
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="The labelled data set: COCO, YOLO or satellite.")
@dataset_type_option
@click.option(
    "--unlabelled", required=True, callback=not_empty, help="Images, a folder, a pattern or a .txt list; or a data set."
)
@click.option("--unlabelled-split", help="Of a data set: its images. Its annotations only tell how right the labels are.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder of the rounds.")
@click.option("--rounds", type=click.IntRange(1, 100), default=2, show_default=True, help="Rounds with pseudo labels.")
@click.option("--epochs", type=click.IntRange(min=1), help="Epochs of round 0, over the labelled images (train.epochs).")
@click.option(
    "--round-epochs",
    type=click.IntRange(min=1),
    help="Epochs of every other round, over all images.  [default: as many steps as round 0]",
)
@click.option("--init", type=click.Path(path_type=Path), help="This checkpoint stands in for round 0.")
@click.option(
    "--student",
    type=click.Choice(["teacher", "fresh"]),
    default="teacher",
    show_default=True,
    help="A round begins from its teacher's weights, or from random ones.",
)
@click.option(
    "--labelled-share",
    type=FiniteRange(0, 1, min_open=True, max_open=True),
    default=0.5,
    show_default=True,
    help="Of the images that a round looks at.",
)
@click.option(
    "--pseudo-weight",
    type=FiniteRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Factor on the weight of every pseudo label.",
)
@click.option("--precision", type=SHARE, help="Choose the limits in every round, on val, for this precision at IoU 0.5.")
@label_options
@click.option("--resume", is_flag=True, help="Go on with the rounds in OUTPUT.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Override one configuration value; repeatable.")
@click.option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:1.  [default: auto]")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads (default: all cores).")
@json_option
def self_train(config: Path | None, output: Path, resume: bool, as_json: bool, **options: Any) -> None:
    """Train on the labelled images (round 0); then, in every round, let the averaged (EMA) weights of the round before label the
    other images, and train on both. CONFIG is a YAML file or the name of a shipped recipe, as for apex-train fit.

    Images without labels that are also in --data, by their content, are left out. OUTPUT/best.pt is the best round on val, or the
    last one; report.json says what every round was.

    \b
    Examples:
      apex-train self-train --data nuclei/ --unlabelled scans/ --output runs/self
      apex-train self-train fit.yaml --data few/ --unlabelled scans/ --output runs/self --rounds 3 --precision 0.9
      apex-train self-train --data few/ --unlabelled all/ --unlabelled-split rest --output runs/self --student fresh
      apex-train self-train --data few/ --unlabelled scans/ --output runs/self --init best.pt --pseudo-weight 0.5
      apex-train self-train --data few/ --unlabelled scans/ --output runs/self --resume
    """
    from rich.console import Console

    from apex_runtime.cli.interrupt import interruptible
    from apex_runtime.errors import UsageError
    from apex_runtime.pipeline.results import write_json
    from apex_train.cli.fit import Interrupted
    from apex_train.engine.lock import sole_writer
    from apex_train.selftrain.report import conclude
    from apex_train.selftrain.setting import check_output, keep_plan, plan

    if resume and options["init"] is not None:
        raise UsageError("--init and --resume: resumed rounds have their weights.", "Give one of them.")
    rounds = _rounds(config, output, options, Console(stderr=as_json))
    with sole_writer(output):
        check_output(output, resume)
        if options["init"] is not None:
            rounds.give(options["init"])
        keep_plan(output, plan(rounds.setting, rounds.train, rounds.pool))
        with interruptible("stopping after this step; Ctrl-C again to stop at once") as stop:
            if not rounds.run(stop):
                raise Interrupted("stopped; what is done is saved.", "Go on with --resume.")
        report = conclude(rounds)
        write_json(output / "report.json", report)
    _say(report, output, as_json)


def _rounds(config: Path | None, output: Path, options: dict[str, Any], console: Console) -> Rounds:
    """Everything that is asked and opened before the first step."""
    import torch

    from apex_runtime.errors import UsageError
    from apex_train.cli.fit import open_data
    from apex_train.engine.device import resolve_device
    from apex_train.selftrain.rounds import Rounds

    run = _configuration(config, options)
    placement = resolve_device(run.train.device)
    if placement.world > 1:
        raise UsageError("self-train runs in one process.", "Start it without torchrun, with --device cpu, cuda or cuda:N.")
    if options["threads"] is not None:
        torch.set_num_threads(options["threads"])
    train, val, test = open_data(options["data"], run.train.dataset_type)
    setting = _setting(run, val, options)
    pool = _pool(options, train, {"train": train, "val": val, "test": test}, console)
    return Rounds(output, setting, train, val, pool, placement, console)


def _configuration(config: Path | None, options: dict[str, Any]) -> FitConfig:
    """As of ``fit``, but for what the rounds decide themselves."""
    from apex_runtime.errors import UsageError
    from apex_train.cli.fit import configuration

    flags = {name: options[name] for name in ("dataset_type", "epochs", "device")}
    run = configuration(config, options["assignments"], flags)
    remedy = "Leave it out; --labelled-share says how often the labelled images come."
    if run.train.sample_weights is not None:
        raise UsageError("train.sample_weights: self-train writes its own.", remedy)
    if run.train.only == "router":
        raise UsageError(
            "train.only: router learns nothing that labels.", "Train everything, then the router with apex-train fit."
        )
    return run


def _setting(run: FitConfig, val: InstanceDataset | None, options: dict[str, Any]) -> Setting:
    from apex_runtime.errors import UsageError
    from apex_train.selftrain.setting import Setting

    precision = options["precision"]
    choice = choice_of(options, None if precision is None else "--precision")
    if precision is not None and val is None:
        raise UsageError("--precision: the data set has no split val to choose the limits on.", "Add one, or give the limits.")
    return Setting(
        run,
        options["rounds"],
        choice,
        precision,
        options["labelled_share"],
        options["pseudo_weight"],
        options["student"],
        options["round_epochs"],
        options["threads"],
    )


def _pool(options: dict[str, Any], train: InstanceDataset, labelled: dict[str, InstanceDataset | None], console: Console) -> Pool:
    from apex_train.selftrain.pool import check_classes, pool_of

    pictures = _pictures(options["unlabelled"], options["unlabelled_split"])
    check_classes(train, pictures)
    pool = pool_of(pictures, labelled)
    if pool.excluded:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(pool.excluded.items()))
        console.print(
            f"left out of the unlabelled images, by content: {counts}; left: {len(pool.pictures.items)}", highlight=False
        )
    return pool


def _pictures(source: str, split: str | None) -> Pictures:
    from apex_train.pseudo.pictures import of_dataset, of_files

    if split is None:
        from apex_runtime.data.sources import resolve_sources

        return of_files(resolve_sources(source))
    from apex_runtime.cli.data import choose_type, say_left_out
    from apex_runtime.data.open import open_dataset

    dataset = open_dataset(Path(source), split, choose_type(Path(source), None))
    say_left_out(dataset)
    return of_dataset(dataset)


def _say(report: dict[str, Any], output: Path, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(report, indent=2, allow_nan=False))
        return
    from apex_runtime.cli.wide_console import wide_console
    from apex_train.selftrain.report import round_table

    console = wide_console()
    console.print(round_table(report))
    console.print(f"done: {output / 'best.pt'}, {output / 'report.json'}", markup=False, highlight=False, soft_wrap=True)
