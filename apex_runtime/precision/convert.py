"""A graph in the precision of a plan: calibrated, rounded where the plan says so, in float16 where the numbers fit, and checked.

Functions are kept: a call computes in what it is fed, and their bodies follow (CastLike).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from apex_runtime.errors import UsageError
from apex_runtime.precision.fp16 import float_tensors, misfit, possible_in_half, weight_ranges
from apex_runtime.precision.half_graph import with_half_nodes
from apex_runtime.precision.pinned import PINNED, Floor, check_regions, check_untouched
from apex_runtime.precision.placement import Placement, place
from apex_runtime.precision.plan import Plan
from apex_runtime.precision.quantised_graph import with_rounded_nodes
from apex_runtime.precision.ranges import Calibration, Feeds, Method, collect_ranges
from apex_runtime.precision.regions import NO_SCOPE, members, module_of, regions_of
from apex_runtime.precision.tensor_types import tensor_types

if TYPE_CHECKING:
    import onnx

_NAMES = {"uint8": "int8", "int8": "int8", "fp8": "float8_e4m3fn"}


@dataclass(frozen=True)
class Decision:
    """In which precision a node of the graph computes, and why: float32, float16, int8, float8_e4m3fn, or "integer" without any
    floats. Eight bits mean that all it reads is rounded; ``reason`` says where others read something rounded, too."""

    node: str
    op: str
    region: str
    precision: str
    reason: str


@dataclass(frozen=True)
class Converted:
    """The graph after the passes, a decision for every node of the graph before them, and what the decisions rest on."""

    model: onnx.ModelProto
    decisions: tuple[Decision, ...]
    calibration: Calibration


class Conversion:
    """One graph and one plan: first what must be known of the numbers, ``watched``, then the graph, ``finish``."""

    def __init__(self, model: onnx.ModelProto, plan: Plan) -> None:
        """Raises ModelError (a pinned region is empty, the graph contradicts itself), UsageError (a pin that matches nothing)."""
        self.model, self.plan = model, plan
        self.regions, self.types = regions_of(model), tensor_types(model)
        check_regions(self.regions)
        self.pinned = _pinned_by_user(model, plan, self.regions)
        self.possible = possible_in_half(model, self.types)
        self.placement = self._place()
        self.free = {name for name in self.possible if plan.half and self._floor(name) != "float32"}

    @property
    def watched(self) -> tuple[str, ...]:
        """The tensors whose least and largest value must be known."""
        return tuple(dict.fromkeys((*float_tensors(self.model, self.free, self.types), *self.placement.tensors)))

    def finish(self, calibration: Calibration) -> Converted:
        """The graph, with the ranges of ``watched``. Raises ModelError when a pass did what it must not."""
        ranges = {**calibration.ranges, **weight_ranges(self.model)}
        misfits = {node.name: misfit(node, ranges) for node in self.model.graph.node if node.name in self.free}
        halved = {name: self.possible[name] for name in self.free if not misfits[name]}
        changed = with_half_nodes(self.model, halved, self.types)
        if self.plan.number_format is not None:
            steps = calibration.quantised
            changed = with_rounded_nodes(changed, self.model, self.placement, steps, self.plan.number_format)
        check_untouched(self.model, changed, self.pinned)
        decisions = tuple(self._decision(node, calibration, misfits) for node in self.model.graph.node)
        return Converted(changed, decisions, calibration)

    def _place(self) -> Placement:
        if self.plan.number_format is None:
            return Placement({}, frozenset(), frozenset(), (), {})
        inside = {name for name, region in self.regions.items() if region in self.plan.regions and region not in PINNED}
        return place(self.model, frozenset(inside - set(self.pinned)), self.plan.result_too, self.plan.sixteens)

    def _floor(self, name: str) -> Floor | None:
        region = self.regions[name]
        return "float32" if name in self.pinned or region == NO_SCOPE else PINNED.get(region)

    def _decision(self, node: onnx.NodeProto, calibration: Calibration, misfits: Mapping[str, str]) -> Decision:
        from onnx import TensorProto

        region = self.regions[node.name]
        if not any(self.types.get(name) == TensorProto.FLOAT for name in (*node.input, *node.output)):
            return Decision(node.name, node.op_type, region, "integer", "no floats")
        if self.plan.number_format is not None and node.name in self.placement.products | self.placement.sums:
            precision = _NAMES[self.plan.number_format.name]
            return Decision(node.name, node.op_type, region, precision, self._read(node, calibration))
        half = misfits.get(node.name) == ""
        reason = self.placement.refused.get(node.name, "fits") if half else misfits.get(node.name) or self._why_float32(node.name)
        reasons = "; ".join(filter(None, (reason, self._read(node, calibration))))
        return Decision(node.name, node.op_type, region, "float16" if half else "float32", reasons)

    def _read(self, node: onnx.NodeProto, calibration: Calibration) -> str:
        """Which rounded tensors a node reads, and from which range; empty where it reads none."""
        edges = (self.placement.edges.get((node.name, index)) for index in range(len(node.input)))
        found = ", ".join(f"{name} rounded, {calibration.quantised[name]}" for name in edges if name)
        return f"reads {found}" if found else ""

    def _why_float32(self, name: str) -> str:
        region = self.regions[name]
        if PINNED.get(region) == "float32":
            return f"the region {region} is pinned to float32"
        if name in self.pinned:
            return "pinned by --pin"
        if region == NO_SCOPE:
            return "nothing says to which region it belongs"
        if name in self.placement.refused:
            return self.placement.refused[name]
        if not self.plan.half:
            return "only products are rounded" if region in self.plan.regions else f"the region {region} is not rounded"
        return "its op makes float32 of its own accord"


def convert(model: onnx.ModelProto, plan: Plan, feeds: Iterable[Feeds], method: Method = "minmax") -> Converted:
    """The same graph in the precision of ``plan``, inputs and outputs as they were. ``feeds``: what the graph is fed for each
    image of the calibration; ``method``: how the range of a rounded tensor is taken from its numbers.

    Raises ModelError: a pinned region is empty or was touched, the graph contradicts itself, a number is not finite; UsageError
    without an image, or with a pin that matches nothing.
    """
    conversion = Conversion(model, plan)
    return conversion.finish(collect_ranges(model, conversion.watched, feeds, conversion.placement.tensors, method))


def _pinned_by_user(model: onnx.ModelProto, plan: Plan, regions: Mapping[str, str]) -> dict[str, Floor]:
    """The nodes that the plan's patterns match. Raises UsageError for a pattern that matches none."""
    modules = {node.name: module_of(node) for node in model.graph.node}
    for pattern in plan.pins:
        if not any(pattern.search(word) for name in regions for word in (regions[name], modules[name])):
            known = ", ".join(members(regions))
            raise UsageError(f"--pin {pattern.pattern}: no region and no module matches.", f"The regions are {known}.")
    return {name: "float32" for name, region in regions.items() if plan.is_pinned(region, modules[name])}
