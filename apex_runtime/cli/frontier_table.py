"""The report of ``apex-rt bench frontier`` as a terminal shows it."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from apex_runtime.cli.wide_console import WIDE, wide_console
from apex_runtime.frontier.page import bounds
from apex_runtime.frontier.picture import KINDS


def show(report: dict[str, Any]) -> None:
    """A table per contender; a narrow terminal has room for the figures of one kind of overlap, without intervals."""
    console = wide_console()
    wide = console.width >= WIDE
    kinds = report["asked"]["kinds"][::-1] if wide else report["asked"]["kinds"][-1:]
    for contender in report["contenders"]:
        console.print(_table(contender, [f"{figure}_{kind}" for kind in kinds for figure in ("AP50", "AP")], wide))
        for name, (first, other) in contender["differences"].items():
            console.print(f"  not as the first: {name} {other}, there {first}", markup=False, highlight=False)


def _table(contender: dict[str, Any], names: list[str], wide: bool) -> Table:
    table = Table(title=escape(contender["title"]), title_justify="left")
    table.add_column("line", no_wrap=True)
    columns = [f"{KINDS[name.split('_')[1]]} {name.split('_')[0]}{' (95 %)' if wide else ''}" for name in names]
    for head in ("budget", "tiles", "image ms", *(["graph ms"] if wide else []), *columns):
        table.add_column(head, justify="right", no_wrap=True)
    for row in (row for row in contender["rows"] if row["seed"] is None):
        tiles = "" if row["tiles"] is None else f"{row['tiles']:.1f}"
        times = [f"{row[name]:.1f}" for name in (("image_ms", "graph_ms") if wide else ("image_ms",))]
        figures = (bounds(row.get(name)) for name in names)
        table.add_row(
            row["line"], row["budget"] or "", tiles, *times, *(text if wide else text.partition(" ")[0] for text in figures)
        )
    return table
