"""``apex-train preflight``: what a data set holds and what is wrong with it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from apex_runtime.cli.options import dataset_type_option, json_option, not_empty, split_list

if TYPE_CHECKING:
    from apex_runtime.data.dataset import DatasetType
    from apex_train.preflight.walk import SetReport


@click.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@dataset_type_option
@click.option("--split", "splits", multiple=True, callback=split_list, help="Only these splits.  [default: all]")
@click.option("--threads", type=click.IntRange(1, 256), help="Threads that decode pictures.  [default: one per core]")
@click.option("--all", "everything", is_flag=True, help="Show every finding and every class, not the first few.")
@click.option("--draw", type=click.IntRange(1, 400), metavar="N", help="Write a sheet of N pictures with their objects drawn.")
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False),
    default="preflight.png",
    show_default=True,
    callback=not_empty,
    help="The PNG file of --draw.",
)
@json_option
@click.pass_context
def preflight(
    ctx: click.Context,
    data: tuple[Path, ...],
    dataset_type: DatasetType | None,
    splits: tuple[str, ...],
    threads: int | None,
    everything: bool,
    draw: int | None,
    output: str,
    as_json: bool,
) -> None:
    """Open every split of DATA, decode every picture and mask, and name each fault by file and line.

    Errors make the exit code 1, warnings do not. Several DATA are also compared with each other.

    \b
    Examples:
      apex-train preflight nuclei/
      apex-train preflight vehicles/data.yaml --split train,val --all
      apex-train preflight nuclei/ --draw 16 --output sheet.png
      apex-train preflight nuclei/ cells/ --json > report.json
    """
    from apex_runtime.cli.data import choose_type
    from apex_runtime.cli.progress import counter
    from apex_train.preflight.report import document
    from apex_train.preflight.walk import Walk

    asked = [(folder, choose_type(folder, dataset_type)) for folder in data]
    broken_or_splits = [_splits(folder, kind, splits) for folder, kind in asked]
    walk = Walk(threads or os.cpu_count() or 1, counter)
    reports = [
        walk.check(folder, kind, found) if isinstance(found, list) else found
        for (folder, kind), found in zip(asked, broken_or_splits, strict=True)
    ]
    if draw is not None:
        from apex_train.preflight.sheet import write_sheet

        drawn = write_sheet(reports, draw, Path(output))
        click.echo(f"{drawn} pictures drawn: {output}" if drawn else "no picture to draw", err=True)
    if as_json:
        import json

        click.echo(json.dumps(document(reports), indent=2, allow_nan=False))
    else:
        from rich.console import Console

        from apex_train.preflight.tables import show

        show(reports, Console(emoji=False), everything)  # :car: in a name is no picture
    ctx.exit(1 if any(report.errors for report in reports) else 0)


def _splits(data: Path, kind: DatasetType, asked: tuple[str, ...]) -> list[str] | SetReport:
    """The splits to walk through, or the report of a set that cannot be opened. Raises UsageError."""
    from apex_runtime.errors import DataError
    from apex_train.preflight.walk import broken_set, chosen_splits

    try:
        return chosen_splits(data, kind, asked)
    except DataError as error:
        return broken_set(data, kind, error)
