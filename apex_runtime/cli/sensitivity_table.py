"""How a choice of regions reads: the ranking, what was decided for each region and why, and what was chosen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apex_runtime.precision.sensitivity import Row, Sensitivity, Step


def table(found: Sensitivity) -> Iterator[str]:
    """A line for each region, best first, between one that says on what and one that says which were chosen."""
    yield f"sensitivity: {found.images} image(s), the split {found.split}; {found.executed}; {found.figure or 'nothing to round'}"
    wide = max((len(row.region) for row in found.rows), default=0) + 3
    if found.rows:
        yield f"  {'region':<{wide}}products    drop    time   same tiles"
    for row, step in zip(found.rows, found.steps, strict=True):
        yield f"  {row.region:<{wide}}{_figures(row)}   {_decision(step)}"
    cost = found.cost
    if cost is None:
        yield f"chosen: no region; {found.max_drop:g} points may be lost"
        return
    time = "" if cost.time_ratio is None else f", {cost.time_ratio:.2f}x the time of fp32"
    yield f"chosen: {', '.join(step.region for step in found.steps if step.taken)}; drop {_points(cost.drop_points)}{time}"


def _figures(row: Row) -> str:
    time = "-" if row.time_ratio is None else f"{row.time_ratio:.2f}x"
    return f"{row.products:>8}  {_points(row.drop_points):>6}  {time:>6}   {row.tile_overlap:>10.4f}"


def _decision(step: Step) -> str:
    return f"{'taken' if step.taken else 'left'}: {step.why}"


def _points(drop: float) -> str:
    """Without a minus before nothing."""
    return f"{round(drop, 2) + 0.0:.2f}"
