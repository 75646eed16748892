"""``apex-train report``: the report of a run again, from its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from apex_runtime.cli.options import dataset_type_option, json_option
from apex_runtime.data.dataset import DatasetType
from apex_runtime.errors import DataError, UsageError


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="The data set of the run.")
@dataset_type_option
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:1.")
@click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads.  [default: all cores]")
@json_option
def report(run: Path, data: Path, dataset_type: DatasetType | None, device: str, threads: int | None, as_json: bool) -> None:
    """Measure RUN/best.pt on the split test of DATA and write report.md, report.json and their pictures into RUN.

    `apex-train fit` does the same at its end. RUN is its output folder.

    \b
    Examples:
      apex-train report runs/a --data nuclei/
      apex-train report runs/a --data nuclei/ --threads 4 --json
    """
    for name in ("config.yaml", "best.pt"):
        if not (run / name).is_file():
            raise UsageError(f"{run}: holds no {name}.", "Give the output folder of apex-train fit.", path=run)
    import torch
    from rich.console import Console

    from apex_runtime.cli.data import choose_type
    from apex_runtime.data.open import open_dataset, split_names
    from apex_train.checkpoint import read_checkpoint
    from apex_train.config import load_config
    from apex_train.engine.device import resolve_device
    from apex_train.report.report import write_report

    if threads is not None:
        torch.set_num_threads(threads)
    config = load_config(run / "config.yaml", {})
    kind = choose_type(data, dataset_type or config.train.dataset_type)
    names = split_names(data, kind)
    # With no split at all it is not this data set: opening one says so.
    test = open_dataset(data, "test", kind) if "test" in names or not names else None
    history = read_log(run / "log.jsonl")
    splits = read_checkpoint(run / "best.pt").get("data") or {}
    where = resolve_device(device).device
    path = write_report(
        run, config, history, metric_of(history, config.train.metric), splits, test, where, Console(stderr=as_json)
    )
    click.echo(path.with_suffix(".json").read_text(encoding="utf-8") if as_json else f"written: {path}")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of ``log.jsonl``, an empty list when there is none. Raises DataError."""
    if not path.is_file():
        return []
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except ValueError as error:
        raise DataError(f"{path}: not a log of apex-train fit ({error}).", "Remove the broken line.", path=path) from error
    if not all(isinstance(line, dict) and isinstance(line.get("epoch"), int) for line in lines):
        raise DataError(f"{path}: not a log of apex-train fit (a line without an epoch).", "Remove that line.", path=path)
    return lines


def metric_of(history: list[dict[str, Any]], asked: str) -> str:
    """The figure that chose best.pt, by the rule of the training: what was asked for, else masks, else boxes, else the loss."""
    names = ("mAP_segm", "mAP_bbox", "val_loss") if asked == "auto" else (asked,)
    return next((name for name in names if any(name in line for line in history)), "")
