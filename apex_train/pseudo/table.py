"""The report on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def show(report: Mapping[str, Any], console: Console) -> None:
    """A row per step of the choice, with precision and recall where the truth is known, and a line that sums up."""
    from rich import box
    from rich.table import Table

    truth = report["truth"]
    table = Table(title="labels left after each limit", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("limit")
    for column in ("at least", "left", *(("precision", "recall") if truth else ())):
        table.add_column(column, justify="right")
    table.add_row("unsure", f"{report['limits']['unsure']:g}", str(report["candidates"]), *(("", "") if truth else ()))
    for place, row in enumerate(report["steps"]):
        figures = [_figure(truth["steps"][place][name]) for name in ("precision", "recall")] if truth else []
        table.add_row(row["step"], f"{row['limit']:g}", str(row["left"]), *figures)
    console.print(table)
    for line in _lines(report):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _figure(value: Mapping[str, float] | None) -> str:
    return "-" if value is None else f"{value['value']:.2f} ({value['low']:.2f} to {value['high']:.2f})"


def _lines(report: Mapping[str, Any]) -> list[str]:
    images, truth = report["images"], report["truth"]
    seen = images["labelled"] + images["empty"]
    lines = [
        f"{report['labels']} labels and {report['unsure']} unsure regions in {seen} images, {images['empty']} without a label"
    ]
    if report["calibration"]:
        found = report["calibration"]
        where = f"{found['images']} images of the split {found['split']}"
        lines.append(
            f"limits chosen on {where}: precision {_figure(found['precision'])}, recall {_figure(found['recall'])} there"
        )
    if truth:
        lines.append(f"right: IoU of {truth['overlap']} at least {truth['min_iou']} with one of {truth['objects']} objects; 95 %")
    lines += [f"failed: {each['file_name']}: {each['reason']}" for each in report["failures"][:5]]
    if images["failed"] > 5:
        lines.append(f"and {images['failed'] - 5} more failed")
    return lines
