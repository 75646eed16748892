"""The frontier on a terminal: a row per line, then the questions that it answers."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.table import Table

WIDE = 150  # columns of a log file
KINDS = {"bbox": "box", "segm": "mask"}
Bounds = dict[str, float | None]


def show(content: dict[str, Any], console: Console | None = None) -> None:
    """Print the content of an evidence file."""
    out = console or Console(width=None if sys.stdout.isatty() else WIDE)
    for kind in content["contract"]["kinds"]:
        out.print(_lines(content, kind))
        out.print(_shares(content["summary"][kind], kind))
        out.print(_differences(content["summary"][kind], kind))


def _lines(content: dict[str, Any], kind: str) -> Table:
    contract = content["contract"]
    title = f"{contract['title']}: {contract['images']} images of {contract['split']}, oracle: {contract['oracle']}"
    table = Table(title=title)
    for name in ("line", "budget", "tiles", "ms", "x all tiles", f"{KINDS[kind]} AP50 (95 %)", f"{KINDS[kind]} AP (95 %)"):
        table.add_column(name, justify="left" if name == "line" else "right")
    for row in content["rows"]:
        if row["seed"] is None:
            cells = [
                row["line"],
                row["budget"] or "",
                _number(row["tiles"]),
                _number(row["ms"]),
                _bounds(row["over_all_tiles"], 2),
            ]
            table.add_row(*cells, *(_bounds(row[f"{figure}_{kind}"], 1, 100) for figure in ("AP50", "AP")))
    return table


def _shares(found: dict[str, Any], kind: str) -> Table:
    table = Table(title=f"{KINDS[kind]}: what a budget keeps, and what of the oracle's gain over random tiles the router has")
    keys = ("kept", "captured", "captured of coverage")
    table.add_column("budget", justify="right")
    for key in keys:
        for figure in ("AP50", "AP"):
            table.add_column(f"{key} {figure}", justify="right")
    for budget in found["kept"]:
        table.add_row(budget, *(_bounds(found[key][budget][figure], 3) for key in keys for figure in ("AP50", "AP")))
    return table


def _differences(found: dict[str, Any], kind: str) -> Table:
    table = Table(title=f"{KINDS[kind]}: all tiles minus, points")
    for name in ("line", "AP50", "AP"):
        table.add_column(name, justify="left" if name == "line" else "right")
    for other, figures in found["all tiles minus"].items():
        table.add_row(other, *(_bounds(figures[figure], 2, 100) for figure in ("AP50", "AP")))
    return table


def _bounds(found: Bounds | None, digits: int, factor: float = 1.0) -> str:
    if found is None:
        return ""
    low, value, high = (_number(found[name], digits, factor) for name in ("low", "value", "high"))
    return f"{value} ({low} to {high})"


def _number(value: float | None, digits: int = 1, factor: float = 1.0) -> str:
    return "-" if value is None else f"{factor * value:.{digits}f}"
