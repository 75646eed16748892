"""What a terminal shows of measurements, checks and trends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from apex_runtime.regression.trend import Row, by_series

_COLOURS = {"pass": "green", "fail": "red", "shown": ""}


def measurement_table(document: dict[str, Any]) -> Table:
    """The metrics of a file of ``bench record``."""
    engine, measured = document["engine"], document["measured"]
    table = _table(f"{engine['executed']} {engine['model_sha256'][:12]}, {document['contract']['threads']} thread(s)", 1)
    for name in ("metric", "value", "from", "to"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for name, metric in document["metrics"].items():
        table.add_row(escape(name), *(_figure(metric.get(key), metric["unit"]) for key in ("value", "low", "high")))
    unsure = "" if measured["settled"] else "; some are known less well than to 1 %"
    table.caption = f"{measured['rounds']} rounds in {measured['seconds']:.0f} s{unsure}"
    return table


def check_table(report: dict[str, Any]) -> Table:
    """The metrics of a check, those that are only shown at the end."""
    table = _table(f"engine {report['engine']['model_sha256'][:12]} against {report['baseline']['model_sha256'][:12]}", 1)
    for name in ("metric", "baseline", "current", "limit", "verdict"):
        table.add_column(name, justify="left" if name in ("metric", "verdict") else "right")
    for row in sorted(report["metrics"], key=lambda row: not row["judged"]):
        figures = (_figure(row[key], row["unit"]) for key in ("baseline", "current", "limit"))
        table.add_row(escape(row["name"]), *figures, Text(row["verdict"], _COLOURS[row["verdict"]]))
    return table


def trend_tables(rows: Sequence[Row]) -> Iterator[Table]:
    """One table per series."""
    for series, found in by_series(rows).items():
        table = _table(series, 0)
        names = list(dict.fromkeys(name for row in found for name in row.metrics))
        for name in ("date", "commit", "engine", *names):
            table.add_column(escape(name), justify="right" if name in names else "left", overflow="fold")
        for row in found:
            figures = (_figure(row.metrics.get(name), "bytes" if name.endswith("bytes") else "") for name in names)
            table.add_row(row.created_utc[:16], (row.commit or "-")[:8], row.model_sha256[:8], *figures)
        yield table


def _table(title: str, indent: int) -> Table:
    return Table(title=escape(title), title_justify="left", box=None, pad_edge=False, padding=(0, 1 + indent))


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return f"{value / 1e6:.1f} MB" if unit == "bytes" else f"{value:.4f}" if unit in ("ratio", "") else f"{value:.2f} {unit}"
