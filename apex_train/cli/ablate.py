"""``apex-train ablate``: which choice of a training helps, by seeds in pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apex_runtime.cli.options import json_option, not_empty
from apex_runtime.errors import ApexError

if TYPE_CHECKING:
    from apex_runtime.data.dataset import DatasetType
    from apex_train.ablation.plan import Training
    from apex_train.ablation.run import Failure, Setting
    from apex_train.ablation.study import Study


def _gpu_list(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    if value is None:
        return ()
    found = tuple(each.strip() for each in value.split(","))
    if not all(found) or len(set(found)) < len(found):
        raise click.BadParameter(f"{value!r} is not a list of different GPUs, for example 0,1.")
    return found


@click.command()
@click.argument("study", type=click.Path(dir_okay=False), callback=not_empty)
@click.option("--output", "-o", required=True, type=click.Path(file_okay=False), callback=not_empty, help="Folder of the study.")
@click.option("--jobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Trainings at a time.")
@click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads of each.  [default: all cores]")
@click.option("--gpus", callback=_gpu_list, help="Lend each training one of these, for example 0,1 (as CUDA numbers them).")
@click.option("--dry-run", is_flag=True, help="Check the study and say what it would train; train nothing.")
@click.option("--log", type=click.Path(dir_okay=False), callback=not_empty, help="Also add the verdicts to this Markdown file.")
@json_option
def ablate(
    study: str, output: str, jobs: int, threads: int | None, gpus: tuple[str, ...], dry_run: bool, log: str | None, as_json: bool
) -> None:
    """Train every arm of STUDY (a YAML file) with the same seeds, and say of every level whether it is validated, harmful or
    shows no difference.

    What is finished is kept in OUTPUT: the same command goes on with a study that was stopped, or to which seeds or levels were
    added. At the end there are report.json, report.png and kept.yaml: the reference with what was validated.

    \b
    Examples:
      apex-train ablate study.yaml --output studies/boxes --dry-run
      apex-train ablate study.yaml --output studies/boxes --jobs 2 --threads 1
      apex-train ablate study.yaml --output studies/boxes --log bench/LOG.md --json
      apex-train ablate study.yaml --output studies/boxes --jobs 4 --gpus 0,1,2,3
    """
    from apex_train.ablation.journal import Journal
    from apex_train.ablation.plan import plan
    from apex_train.ablation.report import check_log
    from apex_train.ablation.run import Setting, missing
    from apex_train.ablation.study import read_study
    from apex_train.checkpoint import file_sha256

    if log is not None:
        check_log(Path(log))  # before hours are spent
    asked = read_study(Path(study))
    kind, data_sha256 = _data(asked)
    trainings = plan(asked, data_sha256, None if asked.init is None else file_sha256(asked.init))
    code = _code()
    setting = Setting(Path(output), kind, jobs, threads, code["commit"], gpus)
    left = missing(trainings, Journal(setting.output))
    if dry_run:
        _say_plan(trainings, left, as_json)
        return
    if left:
        _train(asked, left, setting)
    report = _report(asked, trainings, setting, {"code": code, "data_sha256": data_sha256})
    if log is not None:
        _log(report, Path(log), study, output)
    if as_json:
        click.echo(json.dumps(report, indent=2, allow_nan=False))
        return
    from apex_runtime.cli.wide_console import wide_console
    from apex_train.ablation.table import comparison_table

    wide_console().print(comparison_table(report))


def _data(study: Study) -> tuple[DatasetType, str]:
    """The kind of the data set, and a digest of the splits that the study reads."""
    import hashlib

    from apex_runtime.cli.data import choose_type
    from apex_runtime.data.open import open_dataset

    kind = choose_type(study.data, study.dataset_type)
    splits = [open_dataset(study.data, split, kind).fingerprint() for split in ("train", study.split)]
    return kind, hashlib.sha256("".join(splits).encode()).hexdigest()


def _code() -> dict[str, Any]:
    import apex_train
    from apex_runtime.code_state import code_state

    return code_state(Path(str(apex_train.__file__)).parent, ("apex_train", "apex_runtime", "plugins"))


def _say_plan(trainings: tuple[Training, ...], left: list[Training], as_json: bool) -> None:
    cells = sum(len(training.cells) for training in trainings)
    planned = {"trainings": len(trainings), "cells": cells, "trainings_left": len(left)}
    planned["cells_left"] = sum(len(training.cells) for training in left)
    if as_json:
        click.echo(json.dumps(planned, indent=2))
        return
    click.echo(f"{len(trainings)} trainings, {cells} cells; left: {len(left)} trainings, {planned['cells_left']} cells")


def _train(study: Study, left: list[Training], setting: Setting) -> None:
    from apex_runtime.cli.interrupt import interruptible
    from apex_runtime.cli.progress import counter
    from apex_train.ablation.run import run_all
    from apex_train.engine.lock import sole_writer

    with (
        sole_writer(setting.output),
        interruptible("stopping: running trainings save their state; Ctrl-C again to stop at once") as stop,
        counter(len(left), "trainings") as progress,
    ):
        failures = run_all(study, left, setting, stop, progress)
    if failures:
        raise _failed(failures)
    if stop.is_set():
        raise ApexError("the study was stopped; what is finished is kept.", "Go on with the same command.")


def _failed(failures: list[Failure]) -> ApexError:
    first = failures[0]
    message = f"{len(failures)} trainings failed; the first, {first.training.key}, said: {first.last_line}"
    return ApexError(message, f"See {first.log}; the same command tries them again.", path=first.log)


def _report(study: Study, trainings: tuple[Training, ...], setting: Setting, about: dict[str, Any]) -> dict[str, Any]:
    from apex_runtime.files import write_atomically
    from apex_runtime.pipeline.results import write_json
    from apex_train.ablation.analysis import compare
    from apex_train.ablation.journal import Journal
    from apex_train.ablation.kept import recipe_text
    from apex_train.ablation.picture import png
    from apex_train.ablation.report import document
    from apex_train.ablation.run import entries_of

    entries = entries_of(trainings, Journal(setting.output))
    comparisons = compare(study, {place: entry.value for place, entry in entries.items()})
    report = document(study, entries, comparisons, about)
    write_json(setting.output / "report.json", report)
    write_atomically(setting.output / "report.png", png(report))
    write_atomically(setting.output / "kept.yaml", recipe_text(study, comparisons).encode())
    return report


def _log(report: dict[str, Any], log: Path, study: str, output: str) -> None:
    from datetime import UTC, datetime

    from apex_runtime.code_state import command_line
    from apex_train.ablation.report import add_to_log, log_entry

    command = command_line("apex-train", ["ablate", study, "--output", output])
    add_to_log(log, log_entry(report, command, datetime.now(UTC).date()))
