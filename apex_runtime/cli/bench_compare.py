"""``apex-rt bench compare``: rows of several reports in one table, if that is fair."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apex_runtime.cli.options import json_option, none_empty, split_list

if TYPE_CHECKING:
    import rich.table

    from apex_runtime.fairness.tabulate import Table


@click.command("compare")
@click.argument("reports", nargs=-1, required=True, type=click.Path(), callback=none_empty)
@click.option(
    "--across",
    multiple=True,
    callback=split_list,
    metavar="FIELD[,FIELD]",
    help="Fields of the contract that may differ, for example precision; they become columns.",
)
@json_option
def compare(reports: tuple[str, ...], across: tuple[str, ...], as_json: bool) -> None:
    """Put the rows of REPORTS (of apex-rt bench or eval, or evidence bundles) in one table if their contracts are equal.

    A contract says how something was measured: images, size, thresholds, post-processing, precision, batch, threads, hardware,
    versions. Rows whose contracts differ are put in tables of their own, with what differs, and the exit code is 1. A field that
    is meant to differ is named with --across.

    \b
    Examples:
      apex-rt bench compare monday.json tuesday.json
      apex-rt bench compare fp32.json int8.json --across precision
      apex-rt bench compare evidence/ other-machine/ --across hardware,versions --json
    """
    from apex_runtime.fairness import tabulate
    from apex_runtime.fairness.rows import read_reports

    rows = read_reports([Path(path) for path in reports])
    tabulate.check_across(across, rows)
    made = tabulate.tables(rows, across)
    answer = tabulate.as_json(made, across)
    if as_json:
        click.echo(json.dumps(answer, indent=2, allow_nan=False))
    else:
        _show(made, answer, across)
    if len(made) > 1:
        raise SystemExit(1)


def _show(made: list[Table], answer: dict[str, Any], across: tuple[str, ...]) -> None:
    from apex_runtime.cli.wide_console import wide_console

    console = wide_console()
    for number, (table, told) in enumerate(zip(made, answer["tables"], strict=True)):
        if number:
            console.print(
                "Not in the table above, for what differs in how it was measured:", markup=False, highlight=False, soft_wrap=True
            )
            for name, (first, other) in told["differences"].items():
                console.print(f"  {name}: {first} above, {other} here", markup=False, highlight=False, soft_wrap=True)
        console.print(_table(table, told["rows"], across))


def _table(table: Table, rows: list[dict[str, Any]], across: tuple[str, ...]) -> rich.table.Table:
    from rich.markup import escape
    from rich.table import Table as RichTable

    shown = RichTable(title=f"contract {table.contract.sha256()[:12]}", title_justify="left")
    figures = list(dict.fromkeys(name for row in table.rows for name in row.figures))
    for name in ("report", "budget", *across):
        shown.add_column(escape(name), overflow="fold")
    for name in figures:
        shown.add_column(name, justify="right")
    for row, told in zip(table.rows, rows, strict=True):
        varying = [" ".join(str(value) for value in told["across"][field].values()) for field in across]
        shown.add_row(*map(escape, (row.source, row.budget, *varying)), *(_figure(row.figures.get(name)) for name in figures))
    return shown


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
