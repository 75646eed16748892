"""Mask AP over the time of an image, a mark per row of a comparison, bars for the intervals; needs the extra ``plot``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apex_runtime.frontier.picture import COLOURS, INK, logarithmic_milliseconds

_MARKS = "o*sDPX"


def draw(table: list[dict[str, Any]], path: Path) -> None:
    """The PNG file; rows without a time are left out, and named."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=110, layout="constrained")
    ax = figure.subplots()
    timed = [row for row in table if row["image_ms"] is not None]
    whose = list(dict.fromkeys(row["name"].split()[0] for row in table))
    for row in timed:
        number = whose.index(row["name"].split()[0])
        colour, found, ms = COLOURS[number % len(COLOURS)], row["figures"]["AP_segm"], row["image_ms"]
        ax.plot(ms, 100 * found["value"], _MARKS[number % len(_MARKS)], color=colour, markersize=9)
        if None not in found.values():
            ax.plot([ms, ms], [100 * found["low"], 100 * found["high"]], color=colour, alpha=0.5)
        ax.annotate(row["name"], (ms, 100 * found["value"]), textcoords="offset points", xytext=(8, 4), color=colour, fontsize=9)
    logarithmic_milliseconds(ax, [row["image_ms"] for row in timed])
    ax.set_title("mask AP at equal minutes of training", loc="left", color=INK)
    left_out = [row["name"] for row in table if row["image_ms"] is None]
    if left_out:
        ax.text(0.01, 0.01, f"not timed: {', '.join(left_out)}", transform=ax.transAxes, fontsize=8, color=INK)
    figure.savefig(path, metadata={"Software": None})
