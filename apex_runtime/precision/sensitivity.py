"""Which regions of a graph may be rounded to eight bits without losing more than is allowed, judged by measurements.

Region by region first, which gives a ranking; then together, one region after the other: what two roundings cost is not the sum
of what each costs. How a set of regions is measured is for the caller to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, field_serializer

from apex_runtime.precision.convert import Conversion
from apex_runtime.precision.pinned import PINNED
from apex_runtime.precision.placement import PRODUCTS
from apex_runtime.precision.plan import Plan
from apex_runtime.precision.regions import NO_SCOPE, members, regions_of

if TYPE_CHECKING:
    import onnx

FASTER = 0.01  # a graph is faster from so much on; single rounds scatter more than that, so a choice near it is a matter of luck
# Drops below these count as equal in the ranking: a tenth of what is allowed, and never less than what a table shows.
_EQUAL_SHARE, _EQUAL_POINTS = 0.1, 0.01


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Cost(_Strict):
    """A rounded graph against fp32. ``drop_points``: points of AP lost at the worst budget, negative for a gain; ``time_ratio``:
    its time over that of fp32, mean over the budgets, None where nothing is timed; ``tile_overlap``: share of the tiles of fp32
    that it chose again at the budget 0.25, mean over the images."""

    drop_points: float
    time_ratio: float | None
    tile_overlap: float


class Row(Cost):
    """What one region costs, rounded by itself; ``products``: how many convolutions and matrix products are rounded then."""

    region: str
    products: int


class Step(_Strict):
    """A decision. ``together``: what the region costs with those taken before it; None where that was not measured."""

    region: str
    taken: bool
    together: Cost | None
    why: str


class Choice(_Strict):
    """``rows`` in the order in which they were tried, best first, with a step for each; ``chosen``: the regions to round."""

    max_drop: float
    rows: tuple[Row, ...]
    steps: tuple[Step, ...]
    chosen: frozenset[str]

    @field_serializer("chosen")
    def _sorted(self, chosen: frozenset[str]) -> list[str]:
        return sorted(chosen)

    @property
    def cost(self) -> Cost | None:
        """What the chosen regions cost together; None where none was chosen."""
        return next((step.together for step in reversed(self.steps) if step.taken), None)


class Sensitivity(Choice):
    """A choice, and on what it rests: so many ``images`` of a ``split``, ``figure`` of AP, None when
    there was nothing to measure, ``executed`` as in a comparison."""

    split: str
    images: int
    figure: str | None
    executed: str


def candidates(model: onnx.ModelProto, plan: Plan) -> dict[str, Conversion]:
    """The regions in which a plan like ``plan`` could round a product, each with the conversion of that region alone.

    Left out are the pinned ones, those of the plan's pins, and nodes of no region. Raises what ``Conversion`` raises.
    """
    ops, found = {node.name: node.op_type for node in model.graph.node}, {}
    for region, nodes in members(regions_of(model)).items():
        if region not in PINNED and region != NO_SCOPE and any(ops[name] in PRODUCTS for name in nodes):
            conversion = Conversion(model, replace(plan, regions=frozenset({region})))
            if conversion.placement.products:
                found[region] = conversion
    return found


def choose(products: Mapping[str, int], measure: Callable[[frozenset[str]], Cost], max_drop: float) -> Choice:
    """Rank regions, given with their number of products, and take one after the other while AP stays within ``max_drop`` points.

    ``measure`` is asked once for each set of regions that matters: every region alone, then what was taken and the next.
    """
    rows = [Row(region=name, products=products[name], **dict(measure(frozenset({name})))) for name in sorted(products)]
    rows.sort(key=lambda row: _rank(row, max_drop))
    steps: list[Step] = []
    chosen: dict[str, Cost] = {}
    for row in rows:
        step = _step(row, chosen, measure, max_drop)
        if step.taken and step.together is not None:
            chosen[row.region] = step.together
        steps.append(step)
    return Choice(max_drop=max_drop, rows=tuple(rows), steps=tuple(steps), chosen=frozenset(chosen))


def _rank(row: Row, max_drop: float) -> tuple[float, float, int, str]:
    """What a region buys per point lost, where time is measured; else the smallest drop, then the most products."""
    lost = max(row.drop_points, _EQUAL_SHARE * max_drop, _EQUAL_POINTS)
    bought = 0.0 if row.time_ratio is None else (1 - row.time_ratio) / lost
    return -bought, lost, -row.products, row.region


def _step(row: Row, chosen: Mapping[str, Cost], measure: Callable[[frozenset[str]], Cost], max_drop: float) -> Step:
    """Whether to take a region. ``chosen``: those taken so far, each with what it cost with those before it."""
    reason = next(_against(row, " by itself", 1.0, max_drop), "")
    if reason:
        return Step(region=row.region, taken=False, together=None, why=reason)
    beside = f" with {' and '.join(chosen)}" if chosen else " by itself"
    together = measure(frozenset({*chosen, row.region})) if chosen else _alone(row)
    before = list(chosen.values())[-1].time_ratio if chosen else 1.0
    reason = next(_against(together, beside, before, max_drop), "")
    return Step(region=row.region, taken=not reason, together=together, why=reason or _in_favour(together, beside, max_drop))


def _alone(row: Row) -> Cost:
    return Cost(**row.model_dump(include=set(Cost.model_fields)))


def _against(cost: Cost, beside: str, before: float | None, max_drop: float) -> Iterator[str]:
    """Reasons not to take a region that costs so much ``beside`` others, whose time ratio was ``before``."""
    if cost.drop_points > max_drop:
        yield _loss(cost, beside, max_drop)
    if cost.time_ratio is not None and before is not None and cost.time_ratio >= before * (1 - FASTER):
        was = f", {before:.2f}x without it" if before != 1 else ""
        yield f"makes the graph no faster{beside}: {cost.time_ratio:.2f}x the time of fp32{was}"


def _in_favour(cost: Cost, beside: str, max_drop: float) -> str:
    time = "" if cost.time_ratio is None else f"; {cost.time_ratio:.2f}x the time of fp32"
    return _loss(cost, beside, max_drop) + time


def _loss(cost: Cost, beside: str, max_drop: float) -> str:
    lost, shown = cost.drop_points, round(cost.drop_points, 2)
    digits = 4 if shown <= max_drop < lost else 2  # what is too much must not read as if it were not
    return f"{'gains' if shown < 0 else 'loses'} {abs(lost):.{digits}f} points{beside}, {max_drop:g} are allowed"
