"""The comparisons of a study as one picture: difference and interval of every level, the seeds behind them."""

from __future__ import annotations

import io
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {"validated": "#1a7f37", "harmful": "#b42318", "no difference shown": "#667085"}
_ROW, _WIDTH, _DPI = 0.42, 9.0, 110  # inches, inches, dots per inch
_LINE = 90  # characters that fit into the width


def png(report: dict[str, Any]) -> bytes:
    """The PNG file of a report. Points of AP to the right of 0 are for the level, to the left for the reference."""
    from matplotlib.figure import Figure

    rows, study = report["comparisons"], report["study"]
    figure = Figure(figsize=(_WIDTH, 1.6 + _ROW * len(rows)), dpi=_DPI, layout="constrained")
    ax = figure.subplots()
    for place, row in enumerate(rows):
        _draw(ax, row, place)
    ax.axvline(0, color="#98a2b3", linewidth=1)
    ax.set_yticks(range(len(rows)), [f"{row['factor']}: {row['level']} against {row['reference']}" for row in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlabel(f"{study['metric']} on {study['split']}, difference in points; {100 * (1 - study['alpha']):g} % interval")
    title = f"{study['name']}: {len(study['seeds'])} seeds in pairs, {study['epochs']} epochs"
    figure.suptitle(textwrap.fill(title, _LINE), fontsize=11, x=0.01, horizontalalignment="left")
    ax.grid(axis="x", alpha=0.3)
    handles, labels = ax.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    figure.legend(once.values(), once.keys(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _draw(ax: Axes, row: dict[str, Any], place: int) -> None:
    colour, middle = _COLOURS[row["verdict"]], 100 * row["difference"]
    low, high = row["interval"]
    if low is not None and high is not None:
        ax.plot([100 * low, 100 * high], [place, place], color=colour, linewidth=2)
    ax.plot([100 * value for value in row["differences"]], [place] * len(row["differences"]), "|", color=colour, alpha=0.6)
    ax.plot([middle], [place], "o", color=colour, label=row["verdict"])
