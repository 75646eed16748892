"""The curves of a run on one sheet: what the log holds, and nothing that it does not."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apex_runtime.files import write_atomically
from apex_train.engine.logs import flatten
from apex_train.losses.compute import KEYS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 2
_PANEL = (5.6, 3.3)  # inches
_DPI = 110
_GIB = 1 << 30
_BYTES = ("allocated", "reserved", "peak")  # of what the log says of memory, the keys that count bytes


@dataclass(frozen=True)
class Curve:
    """One line: its name and the epochs and values where the log has a finite number."""

    name: str
    epochs: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    """One diagram. ``unit``: what the axis counts; ``log``: a logarithmic axis; ``zero``: it begins at 0."""

    title: str
    unit: str
    curves: tuple[Curve, ...]
    log: bool = False
    zero: bool = False


def write_curves(history: Sequence[dict[str, Any]], metric: str, path: Path) -> list[str]:
    """Draw the panels that the history has numbers for into a PNG file; their titles (none: no file). Raises OSError."""
    found = panels(history, metric)
    if found:
        write_atomically(path, _sheet(found))
    return [panel.title for panel in found]


def panels(history: Sequence[dict[str, Any]], metric: str) -> list[Panel]:
    """What there is to draw: losses, the figure that chose best.pt, learning rate, alpha and memory."""
    lines = [dict(flatten(line)) for line in history]
    terms = [key for key in KEYS if key != "total"]
    memory = [f"memory.{name}" for name in _BYTES]
    names = {metric: "all tiles", f"{metric}_peripheral": "no tiles"}
    wanted = [
        Panel("Loss, total", "", _curves(lines, {"total": "train", "val_loss": "val"})),
        Panel("Loss terms", "weighted", _curves(lines, {key: key for key in terms}, zeros=False), log=True),
        Panel(f"{metric} on val", "", _curves(lines, names) if metric else (), zero=True),
        Panel("Learning rate", "", _curves(lines, {"learning_rate": "learning rate"}), zero=True),
        Panel("Alpha: weight of the close look", "", _curves(lines, {"alpha": "alpha"})),
        Panel("Memory", "GiB", _curves(lines, {key: key.removeprefix("memory.") for key in memory}, scale=1 / _GIB), zero=True),
    ]
    return [panel for panel in wanted if panel.curves]


def _curves(lines: Sequence[dict[str, Any]], names: dict[str, str], scale: float = 1.0, zeros: bool = True) -> tuple[Curve, ...]:
    """A curve per key that has numbers; without ``zeros`` one that is never above zero, a loss that is off, is left out."""
    found = []
    for key, name in names.items():
        points = [
            (int(line.get("epoch", number)), float(line[key]) * scale)
            for number, line in enumerate(lines, start=1)
            if isinstance(line.get(key), int | float) and abs(line[key]) < float("inf")
        ]
        if points and (zeros or max(value for _, value in points) > 0):
            found.append(Curve(name, *(tuple(column) for column in zip(*points, strict=True))))
    return tuple(found)


def _sheet(found: Sequence[Panel]) -> bytes:
    """PNG of all panels, two in a row."""
    from matplotlib.figure import Figure

    rows = -(-len(found) // _COLUMNS)
    figure = Figure(figsize=(_PANEL[0] * _COLUMNS, _PANEL[1] * rows), dpi=_DPI, layout="constrained")
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).reshape(-1)
    epochs = [epoch for panel in found for curve in panel.curves for epoch in curve.epochs]
    for panel, ax in zip(found, axes, strict=False):
        _draw(panel, ax)
        ax.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)  # the same for all, also when a figure is measured rarely
    for ax in axes[len(found) :]:
        ax.set_axis_off()
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _draw(panel: Panel, ax: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    for curve in panel.curves:
        marker = "o" if len(curve.epochs) <= 30 else None
        ax.plot(curve.epochs, curve.values, marker=marker, markersize=3, linewidth=1.4, label=curve.name)
    if panel.log:
        ax.set_yscale("log", nonpositive="mask")
    elif panel.zero:
        values = [value for curve in panel.curves for value in curve.values]
        ax.set_ylim(min(0.0, *values), 1.08 * max(values) or 1.0)
    ax.set_title(panel.title, fontsize=11)
    ax.set_xlabel("epoch")
    ax.set_ylabel(panel.unit)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.grid(alpha=0.3)
    if len(panel.curves) > 6:
        ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    else:
        ax.legend(fontsize=8, frameon=False)
