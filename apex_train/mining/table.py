"""The hardest images on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apex_train.mining.look import SIGNALS

if TYPE_CHECKING:
    from rich.console import Console

_ROWS, _FAILURES = 10, 5


def show(report: dict[str, Any], output: str, console: Console) -> None:
    """A row per image, and lines that sum up and name what failed."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="hardest images", title_justify="left")
    table.add_column("image")
    for name in ("hardness", *SIGNALS, "weight"):
        table.add_column(name, justify="right")
    for row in report["images"][:_ROWS]:
        cells = (row[name] for name in ("hardness", *SIGNALS, "weight"))
        table.add_row(escape(row["file_name"]), *("-" if cell is None else f"{cell:.3f}" for cell in cells))
    console.print(table)
    failures = report["failures"]
    lines = [f"failed: {each['file_name']}: {each['reason']}" for each in failures[:_FAILURES]]
    if len(failures) > _FAILURES:
        lines.append(f"and {len(failures) - _FAILURES} more failed")
    lines.append(f"{report['chosen']} of {len(report['images'])} images chosen; written: {output}")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
