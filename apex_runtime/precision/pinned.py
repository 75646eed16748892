"""Regions that no pass may make coarser than their floor, and the check that none did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np

from apex_runtime.errors import ModelError
from apex_runtime.precision.regions import EXPORT_AGAIN, members, regions_of
from apex_runtime.precision.tensor_types import tensor_types

if TYPE_CHECKING:
    import onnx

Floor = Literal["float32", "float16"]

# The coarsest type that a region may have in any profile. The router and the key of the selection decide which tiles are seen:
# the key is a whole number up to 2^24. The scan is a cumulative sum and an exponential. Positions in pixels have steps of half
# a pixel above 512 in float16. At the entrance a normalised black pixel is -2, where a step of float16 is a ninth of a grey
# level: dark images lose what little contrast they have.
PINNED: Mapping[str, Floor] = {
    "entrance": "float32",
    "router": "float32",
    "selection": "float32",
    "scan": "float32",
    "decode": "float32",
    "prototypes": "float16",
    "scores": "float16",
}
_OUR_FAULT = "Nothing was written. This is a fault of the pass, not of your model: please report it."


def check_regions(regions: Mapping[str, str]) -> None:
    """Raises ModelError when a pinned region has no node: then nothing says what must be left alone."""
    found = members(regions)
    missing = [name for name in PINNED if name not in found]
    if missing:
        raise ModelError(
            f"No node belongs to the pinned region(s) {', '.join(missing)}: what must keep its precision is not known.",
            EXPORT_AGAIN,
            code="pinned_region_empty",
        )


def check_untouched(before: onnx.ModelProto, after: onnx.ModelProto, pinned: Mapping[str, Floor] | None = None) -> None:
    """Raises ModelError when a pass touched a pinned region, or one of the nodes ``pinned``: a node is gone or another, its
    weights have other values, its tensors a coarser type than the floor, or its data come from elsewhere than they came
    from, casts aside. Also when it lost or changed a function."""
    regions = regions_of(before)
    check_regions(regions)
    if _functions(before) != _functions(after):
        raise ModelError("A pass lost or changed a function of the graph.", _OUR_FAULT, code="functions_changed")
    old, new = _Graph(before), _Graph(after)
    for name, region in regions.items():
        floor = (pinned or {}).get(name) or PINNED.get(region)
        if floor is not None:
            problem = _problem(old, new, name, floor)
            if problem:
                raise ModelError(
                    f"A pass touched the pinned region {region}: node {name} {problem}.",
                    _OUR_FAULT,
                    code="pinned_region_touched",
                )


def _functions(model: onnx.ModelProto) -> dict[tuple[str, str], bytes]:
    return {(item.domain, item.name): item.SerializeToString(deterministic=True) for item in model.functions}


class _Graph:
    """One side of the comparison, ready to be asked."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = {node.name: node for node in model.graph.node}
        self.producer = {output: node for node in model.graph.node for output in node.output}
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.types = tensor_types(model)

    def way(self, name: str, other: _Graph) -> list[str]:
        """A tensor, and from where it came through the casts that ``other`` does not have, its origin last."""
        names = [name]
        while (node := self.producer.get(names[-1])) is not None and node.op_type == "Cast" and node.name not in other.nodes:
            names.append(node.input[0])
        return names


def _problem(old: _Graph, new: _Graph, name: str, floor: Floor) -> str:
    """What is wrong with one pinned node after a pass, or an empty string."""
    before, after = old.nodes[name], new.nodes.get(name)
    if after is None:
        return "is gone"
    if (before.domain, before.op_type, *before.attribute) != (after.domain, after.op_type, *after.attribute):
        return "computes something else"
    pairs = [*zip(before.input, after.input, strict=False), *zip(before.output, after.output, strict=False)]
    if (len(before.input), len(before.output)) != (len(after.input), len(after.output)):
        return "has another number of inputs or outputs"
    for first, second in pairs:
        problem = _tensor_problem(old, new, first, second, floor)
        if problem:
            return problem
    return _input_problem(old, new, before, after, floor)


def _tensor_problem(old: _Graph, new: _Graph, first: str, second: str, floor: Floor) -> str:
    from onnx import TensorProto, helper

    had, has = (side.types.get(name, TensorProto.UNDEFINED) for side, name in ((old, first), (new, second)))
    fine = has == had or (floor == "float16" and (had, has) == (TensorProto.FLOAT, TensorProto.FLOAT16))
    return "" if fine else f"has {second} in {helper.tensor_dtype_to_string(has)}, the floor is {floor}"


def _input_problem(old: _Graph, new: _Graph, before: onnx.NodeProto, after: onnx.NodeProto, floor: Floor) -> str:
    from onnx import TensorProto

    allowed = {TensorProto.FLOAT16} if floor == "float16" else set()
    for first, second in zip(before.input, after.input, strict=True):
        if first in old.weights:
            if second not in new.weights or not _same_values(old.weights[first], new.weights[second]):
                return f"has another weight in place of {first}"
        elif first:
            way = new.way(second, old)
            if way[-1] not in (first, *_renamed(old, new, first)):
                return f"reads {way[-1]} in place of {first}"
            fine = allowed | {new.types.get(way[-1]), old.types.get(first)}
            narrow = next((name for name in way if new.types.get(name) not in fine), "")
            if narrow:
                return f"reads {first} rounded on its way, in {narrow}"
    return ""


def _renamed(old: _Graph, new: _Graph, name: str) -> tuple[str, ...]:
    """The tensor that the producer of ``name`` writes after the pass: outputs of the graph keep their name behind a cast."""
    producer = old.producer.get(name)
    twin = new.nodes.get(producer.name) if producer is not None else None
    if producer is None or twin is None or len(twin.output) != len(producer.output):
        return ()
    return (twin.output[list(producer.output).index(name)],)


def _same_values(first: onnx.TensorProto, second: onnx.TensorProto) -> bool:
    """Equal as they are stored, or, for a weight in float16, equal to the rounded one."""
    from onnx import numpy_helper

    old, new = numpy_helper.to_array(first), numpy_helper.to_array(second)
    return old.shape == new.shape and np.array_equal(old.astype(new.dtype), new, equal_nan=old.dtype.kind == "f")
