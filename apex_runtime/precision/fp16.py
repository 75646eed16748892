"""Which nodes of a graph can compute in float16, and for which of them the numbers fit.

The converter that comes with ONNX Runtime 1.32 does not do: it casts down and up again between two nodes that stay float32, and
writes casts behind the nodes that read them, which the checker of ONNX refuses.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from apex_runtime.precision.ranges import Range
from apex_runtime.precision.tensor_types import half_inputs

if TYPE_CHECKING:
    import onnx

# Half of the largest float16, 65504: a little more on another image does not overflow.
LARGEST = float(np.finfo(np.float16).max) / 2
# Below it float16 loses digits, and a small constant that keeps a quotient or a logarithm finite may vanish.
SMALLEST_NORMAL = float(np.finfo(np.float16).smallest_normal)


def possible_in_half(model: onnx.ModelProto, types: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The nodes that can, by name, and which of their inputs are float16 then."""
    found = ((node.name, half_inputs(node, types, model)) for node in model.graph.node)
    return {name: inputs for name, inputs in found if inputs is not None}


def float_tensors(model: onnx.ModelProto, names: Collection[str], types: Mapping[str, int]) -> list[str]:
    """The float32 tensors that the nodes ``names`` read and write, those that are computed, once each."""
    from onnx import TensorProto

    weights = {tensor.name for tensor in model.graph.initializer}
    touched = (tensor for node in model.graph.node if node.name in names for tensor in (*node.input, *node.output))
    return list(dict.fromkeys(name for name in touched if types.get(name) == TensorProto.FLOAT and name not in weights))


def weight_ranges(model: onnx.ModelProto) -> dict[str, Range]:
    """Least and largest value of every float32 weight."""
    from onnx import TensorProto, numpy_helper

    arrays = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer if item.data_type == TensorProto.FLOAT}
    return {name: Range(float(array.min()), float(array.max())) for name, array in arrays.items() if array.size}


def misfit(node: onnx.NodeProto, ranges: Mapping[str, Range]) -> str:
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
