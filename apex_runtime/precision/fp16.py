"""The pass ``fp16``: every node that can computes in float16, except where a region is pinned or the numbers do not fit.

Functions are kept: a call computes in what it is fed, and their bodies follow (CastLike). The converter that comes with ONNX
Runtime 1.32 does not fit: it casts down and up again between two nodes that stay float32, and writes casts behind the nodes that
read them, which the checker of ONNX refuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from apex_runtime.precision.half_graph import with_half_nodes
from apex_runtime.precision.pinned import PINNED, check_regions, check_untouched
from apex_runtime.precision.ranges import Calibration, Feeds, Range, collect_ranges
from apex_runtime.precision.regions import NO_SCOPE, regions_of
from apex_runtime.precision.tensor_types import half_inputs, tensor_types

if TYPE_CHECKING:
    import onnx

# Half of the largest float16, 65504: a little more on another image does not overflow.
LARGEST = float(np.finfo(np.float16).max) / 2
# Below it float16 loses digits, and a small constant that keeps a quotient or a logarithm finite may vanish.
SMALLEST_NORMAL = float(np.finfo(np.float16).smallest_normal)


@dataclass(frozen=True)
class Decision:
    """In which precision a node of the graph computes, and why. ``precision`` is its type, or "integer" without any floats."""

    node: str
    op: str
    region: str
    precision: str
    reason: str


@dataclass(frozen=True)
class Converted:
    """The graph after the pass, a decision for every node of the graph before it, and what the decisions rest on."""

    model: onnx.ModelProto
    decisions: tuple[Decision, ...]
    calibration: Calibration


def to_float16(model: onnx.ModelProto, feeds: Iterable[Feeds]) -> Converted:
    """The same graph with float16 inside, inputs and outputs as they were. ``feeds``: what the graph is fed for each image of the
    calibration.

    Raises ModelError: a pinned region is empty or was touched, the graph contradicts itself; UsageError without an image.
    """
    regions, types = regions_of(model), tensor_types(model)
    check_regions(regions)
    possible = {node.name: inputs for node in model.graph.node if (inputs := half_inputs(node, types, model)) is not None}
    free = {name for name in possible if PINNED.get(regions[name]) != "float32" and regions[name] != NO_SCOPE}
    calibration = collect_ranges(model, _watched(model, free, types), feeds)
    ranges = {**calibration.ranges, **_weight_ranges(model)}
    misfits = {node.name: _misfit(node, ranges) for node in model.graph.node if node.name in free}
    halved = {name for name in free if not misfits[name]}
    changed = with_half_nodes(model, {name: possible[name] for name in halved}, types)
    check_untouched(model, changed)
    decisions = (_decision(node, regions[node.name], types, possible, misfits) for node in model.graph.node)
    return Converted(changed, tuple(decisions), calibration)


def _watched(model: onnx.ModelProto, names: set[str], types: Mapping[str, int]) -> list[str]:
    """The float32 tensors that the nodes ``names`` read and write, those that are computed, once each."""
    from onnx import TensorProto

    weights = {tensor.name for tensor in model.graph.initializer}
    touched = (tensor for node in model.graph.node if node.name in names for tensor in (*node.input, *node.output))
    return list(dict.fromkeys(name for name in touched if types.get(name) == TensorProto.FLOAT and name not in weights))


def _weight_ranges(model: onnx.ModelProto) -> dict[str, Range]:
    from onnx import TensorProto, numpy_helper

    arrays = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer if item.data_type == TensorProto.FLOAT}
    return {name: Range(float(array.min()), float(array.max())) for name, array in arrays.items() if array.size}


def _misfit(node: onnx.NodeProto, ranges: Mapping[str, Range]) -> str:
    """Which tensor of a node does not fit into float16, with its range; empty when all do."""
    for name in (*node.input, *node.output):
        seen = ranges.get(name)
        if seen is None or seen.magnitude == 0:
            continue
        if not seen.magnitude <= LARGEST:
            return f"{name} is {seen}: float16 ends at 65504, half of that is allowed"
        if seen.magnitude < SMALLEST_NORMAL:
            return f"{name} is {seen}: below {SMALLEST_NORMAL:.3g} float16 loses digits"
    return ""


def _decision(
    node: onnx.NodeProto,
    region: str,
    types: Mapping[str, int],
    possible: Mapping[str, tuple[int, ...]],
    misfits: Mapping[str, str],
) -> Decision:
    from onnx import TensorProto

    if not any(types.get(name) == TensorProto.FLOAT for name in (*node.input, *node.output)):
        precision, reason = "integer", "no floats"
    elif misfits.get(node.name) == "":
        precision, reason = "float16", "fits"
    else:
        precision = "float32"
        reason = misfits.get(node.name) or _why_float32(node.name, region, possible)
    return Decision(node.name, node.op_type, region, precision, reason)


def _why_float32(name: str, region: str, possible: Mapping[str, tuple[int, ...]]) -> str:
    if PINNED.get(region) == "float32":
        return f"the region {region} is pinned to float32"
    if region == NO_SCOPE:
        return "nothing says to which region it belongs"
    return "its op makes float32 of its own accord" if name not in possible else "pinned"
