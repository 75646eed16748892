"""The frontier as a picture: accuracy over the time of an image, a colour per contender, a mark per line.

Drawn from the report alone by matplotlib, which the extra ``plot`` brings.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from apex_runtime.errors import MissingPackageError
from apex_runtime.routing.budget import parse_budget

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, FAINT = "#24292f", "#d8dee4"
COLOURS = ("#0969da", "#cf222e", "#1a7f37", "#8250df", "#bf8700", "#57606a")
NAMES = {"AP50": "AP50", "AP": "AP (mean over IoU 0.50 to 0.95)"}
KINDS = {"segm": "mask", "bbox": "box"}
STYLES = {
    "router": ("o", "-", "its own tiles"),
    "random": (".", ":", "random tiles"),
    "coverage": ("v", "--", "tiles with most objects"),
}
MARKS = {
    "all tiles": ("D", "all tiles"),
    "peripheral": ("X", "no tiles"),
    "dense": ("s", "dense pass, same weights"),
    "sliced": ("P", "sliced, all tiles in every window"),
    "yardstick": ("*", ""),
}


def check() -> None:
    """Raises MissingPackageError without matplotlib: asked before anything is measured."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        remedy = 'Install the extra plot: pip install ".[plot]" in a checkout; or leave the picture out.'
        raise MissingPackageError(f"Pictures need matplotlib ({error}).", remedy) from error


def png(report: dict[str, Any]) -> bytes:
    """The PNG file of a report."""
    from matplotlib.figure import Figure

    kind = common_kind(report)
    contenders = _in_step(report["contenders"])
    figure = Figure(figsize=(12.4, 6.1), dpi=110, layout="constrained")
    axes = figure.subplots(1, 2)
    for ax, name in zip(axes, NAMES, strict=True):
        for number, contender in enumerate(contenders):
            _contender(ax, contender, f"{name}_{kind}", number)
        ax.set_title(f"{KINDS[kind]} {NAMES[name]}", fontsize=12, color=INK, loc="left")
        logarithmic_milliseconds(ax, [row["image_ms"] for contender in contenders for row in contender["rows"]])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9.5)
    figure.suptitle(_headline(report), fontsize=10.5, color=INK, x=0.01, ha="left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def common_kind(report: dict[str, Any]) -> str:
    """Masks where all detectors have them, else boxes: a detector is never left out of the picture without a word."""
    every = all(row.get(f"AP_{kind}") for kind in report["asked"]["kinds"] for one in report["contenders"] for row in one["rows"])
    return str(report["asked"]["kinds"][-1]) if every else "bbox"


def _in_step(contenders: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Times as quotients over the first detector's all tiles, times the median of that."""
    rows = contenders[0]["rows"]
    whole = next((row for row in rows if row["line"] == "all tiles"), rows[0])["image_ms"]
    return [
        each | {"rows": [row | {"image_ms": whole * row["relative"]["ratio"]} for row in each["rows"]]} for each in contenders
    ]


def _headline(report: dict[str, Any]) -> str:
    data, threads = report["data"], report["asked"]["threads"]
    which = f"{data['images']} images of {data['split']}"
    used = "default threads" if threads is None else f"{threads} thread{'s' * (threads > 1)}"
    return f"{which}; time from pixels to results, {used}; bars: 95 % over images"


def _contender(ax: Axes, contender: dict[str, Any], name: str, number: int) -> None:
    colour = COLOURS[number % len(COLOURS)]
    rows = [row for row in contender["rows"] if row["seed"] is None and row.get(name, {}).get("value") is not None]
    full = [row for row in rows if row["line"] == "all tiles"]
    for kind, (marker, dash, label) in STYLES.items():
        points = sorted((row for row in rows if row["line"] == kind), key=lambda row: row["image_ms"])
        if points:
            _line(ax, points, full, name, (colour, marker, dash, f"{contender['title']}: {label}"))
        if kind == "router":
            _budgets(ax, points, name, colour, above=number % 2 == 1)
    for kind, (marker, label) in MARKS.items():
        for row in (row for row in rows if row["line"] == kind):
            _bar(ax, row, name, colour)
            text = ": ".join(filter(None, (contender["title"], label)))
            ax.plot(*_point(row, name), marker, color=colour, markersize=12 if marker == "*" else 9, label=text, zorder=6)


def _line(ax: Axes, points: Sequence[dict[str, Any]], full: Sequence[dict[str, Any]], name: str, style: tuple[str, ...]) -> None:
    colour, marker, dash, label = style
    own = dash == "-"
    x, y = zip(*(_point(row, name) for row in [*points, *full]), strict=True)
    ax.plot(x, y, dash, color=colour, linewidth=2.4 if own else 1.4, alpha=1.0 if own else 0.7, zorder=3)
    ax.plot(x[: len(points)], y[: len(points)], marker, color=colour, markersize=7, alpha=1.0 if own else 0.7, zorder=4)
    ax.plot([], [], marker + dash, color=colour, label=label)


def _budgets(ax: Axes, points: Sequence[dict[str, Any]], name: str, colour: str, above: bool) -> None:
    """Bars, and what the budgets are: of every second detector on the other side of its line, so that two can be read."""
    place: dict[str, Any] = {"xytext": (-7, 8), "ha": "right"} if above else {"xytext": (7, -14)}
    for row in points:
        _bar(ax, row, name, colour)
        budget = parse_budget(row["budget"])
        text = f"{100 * budget.value:.3g} %" if budget.kind == "share" else budget.asked
        ax.annotate(text, _point(row, name), textcoords="offset points", fontsize=9, color=colour, zorder=7, **place)


def _point(row: dict[str, Any], name: str) -> tuple[float, float]:
    return row["image_ms"], 100 * row[name]["value"]


def _bar(ax: Axes, row: dict[str, Any], name: str, colour: str) -> None:
    bounds = [row[name][bound] for bound in ("low", "high")]
    if None not in bounds:
        ax.plot([row["image_ms"]] * 2, [100 * bound for bound in bounds], color=colour, linewidth=1.2, alpha=0.45, zorder=2)


def logarithmic_milliseconds(ax: Axes, milliseconds: Sequence[float]) -> None:
    """The axes of a frontier: milliseconds per image in logarithms, round numbers as ticks, a faint grid."""
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    low, high = min(milliseconds) / 1.15, max(milliseconds) * 1.15
    ax.set_xscale("log")
    ax.set_xlim(low, high)
    bases = (1, 1.5, 2, 3, 4, 5, 7) if high < 30 * low else (1, 2, 5)  # more have no room
    steps = [base * 10**power for power in range(-1, 6) for base in bases]
    ax.xaxis.set_major_locator(FixedLocator([step for step in steps if low <= step <= high]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.set_xlabel("milliseconds per image (logarithmic)", color=INK)
    ax.grid(color=FAINT, linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
