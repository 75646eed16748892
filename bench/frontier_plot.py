"""The frontier as one picture: accuracy over milliseconds, a line per way to choose the tiles, a mark per pass without a choice.

Drawn from the content of the evidence file alone, so that a picture can be made again:

    python bench/frontier_plot.py bench/evidence/FRONTIER.json FRONTIER.png
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apex_runtime.frontier.picture import logarithmic_milliseconds
from apex_runtime.routing.budget import parse_budget

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#24292f"
NAMES = {"AP50": "AP50", "AP": "AP (mean over IoU 0.50 to 0.95)"}
KINDS = {"segm": "mask", "bbox": "box"}


@dataclass(frozen=True)
class Style:
    """How a line or a mark looks, and what the legend says."""

    colour: str
    marker: str
    label: str
    dash: str = "-"
    order: int = 3


CHOICES = {
    "oracle": Style("#1a7f37", "^", "oracle: tiles that lower the loss most"),
    "coverage": Style("#bf8700", "v", "oracle: tiles with most objects", "--"),
    "router": Style("#0969da", "o", "router: the engine's own choice", order=5),
    "random": Style("#8c959f", ".", "random tiles (shaded: its seeds)"),
}
MARKS = {
    "all tiles": Style("#0969da", "D", "all tiles", order=6),
    "peripheral": Style("#cf222e", "X", "no tiles, the peripheral stream alone"),
    "dense": Style("#8250df", "s", "dense pass, same weights"),
    "sliced": Style("#bc4c00", "P", "sliced dense pass (SAHI's way)"),
}


@click.command()
@click.argument("evidence", type=click.Path(exists=True, path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
def main(evidence: Path, output: Path) -> None:
    """Draw EVIDENCE into the PNG file OUTPUT."""
    draw(json.loads(evidence.read_text(encoding="utf-8")), output)


def draw(evidence: dict[str, Any], path: Path) -> None:
    """Write the PNG file."""
    from matplotlib.figure import Figure

    contract = evidence["contract"]
    kind = contract["kinds"][-1]
    figure = Figure(figsize=(12.4, 6.1), dpi=130, layout="constrained")
    axes = figure.subplots(1, 2)
    for ax, figure_name in zip(axes, NAMES, strict=True):
        _panel(ax, _in_step(evidence["rows"]), f"{figure_name}_{kind}")
        ax.set_title(f"{KINDS[kind]} {NAMES[figure_name]}", fontsize=12, color=INK, loc="left")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9.5)
    figure.suptitle(_headline(contract), fontsize=10.5, color=INK, x=0.01, ha="left")
    figure.savefig(path, metadata={"Software": None})


def _in_step(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Times as quotients over all tiles, paired within a round, times the median of all tiles: medians alone jump about on a
    machine that is not quiet."""
    full = next(row["ms"] for row in rows if row["line"] == "all tiles")
    return [row | {"ms": row["over_all_tiles"]["value"] * full} for row in rows]


def _headline(contract: dict[str, Any]) -> str:
    height, width = contract["size"]
    trainings = len(contract["checkpoints"])
    parts = [
        f"{contract['title']}: {contract['images']} images of {contract['split']} at {width} x {height}",
        *([f"mean of {trainings} trainings"] if trainings > 1 else []),
        f"time of the graph in ONNX Runtime, {contract['threads']} CPU thread{'s' * (contract['threads'] > 1)}",
        "bars: 95 % over images",
    ]
    return "\n".join([parts[0], "; ".join(parts[1:])])


def _panel(ax: Axes, rows: Sequence[dict[str, Any]], name: str) -> None:
    full = next(row for row in rows if row["line"] == "all tiles")
    for kind, style in CHOICES.items():
        points = sorted((row for row in rows if row["line"] == kind and row["seed"] is None), key=lambda row: row["ms"])
        _line(ax, [*points, full], name, style)
        if kind == "router":
            _bars(ax, points, name, style)
            _budgets(ax, points, name)
        if kind == "random":
            _band(ax, rows, [*points, full], name, style)
    for kind, style in MARKS.items():
        row = next(row for row in rows if row["line"] == kind)
        _bars(ax, [row], name, style)
        ax.plot(*_point(row, name), style.marker, color=style.colour, markersize=9, label=style.label, zorder=style.order)
    ground = next(row for row in rows if row["line"] == "peripheral")
    ax.axhline(_point(ground, name)[1], color=MARKS["peripheral"].colour, linewidth=0.8, linestyle=":", zorder=1)
    logarithmic_milliseconds(ax, [row["ms"] for row in rows])


def _point(row: dict[str, Any], name: str) -> tuple[float, float]:
    return row["ms"], 100 * row[name]["value"]


def _line(ax: Axes, points: Sequence[dict[str, Any]], name: str, style: Style) -> None:
    x, y = zip(*(_point(row, name) for row in points), strict=True)
    width = 2.4 if style.order > 3 else 1.6
    ax.plot(x, y, style.dash, color=style.colour, linewidth=width, zorder=style.order - 1)
    ax.plot(x[:-1], y[:-1], style.marker, color=style.colour, markersize=7, zorder=style.order)
    ax.plot([], [], style.marker + style.dash, color=style.colour, linewidth=width, markersize=7, label=style.label)


def _bars(ax: Axes, points: Sequence[dict[str, Any]], name: str, style: Style) -> None:
    for row in points:
        x, _ = _point(row, name)
        low, high = (100 * row[name][bound] for bound in ("low", "high"))
        ax.plot([x, x], [low, high], color=style.colour, linewidth=1.2, alpha=0.45, zorder=2)


def _band(ax: Axes, rows: Sequence[dict[str, Any]], points: Sequence[dict[str, Any]], name: str, style: Style) -> None:
    """From the worst to the best seed at each budget."""
    of_budget = [[row for row in rows if row["line"] == "random" and row["budget"] == p["budget"]] or [p] for p in points]
    values = [[_point(row, name)[1] for row in group] for group in of_budget]
    ax.fill_between(
        [row["ms"] for row in points], *([pick(group) for group in values] for pick in (min, max)), color=style.colour, alpha=0.2
    )


def _budgets(ax: Axes, points: Sequence[dict[str, Any]], name: str) -> None:
    from matplotlib.patheffects import withStroke

    for row in points:
        budget = parse_budget(row["budget"])
        text = f"{100 * budget.value:.3g} %" if budget.kind == "share" else budget.asked
        ax.annotate(
            text,
            _point(row, name),
            xytext=(7, -14),
            textcoords="offset points",
            fontsize=9,
            color=CHOICES["router"].colour,
            path_effects=[withStroke(linewidth=3, foreground="white")],
            zorder=7,
        )


if __name__ == "__main__":
    main()
