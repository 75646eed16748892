"""A graph that is rounded to eight bits where a placement says so: QuantizeLinear and DequantizeLinear, one pair per tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from apex_runtime.precision.number_formats import NumberFormat, Steps
from apex_runtime.precision.placement import Placement
from apex_runtime.precision.ranges import Range
from apex_runtime.precision.regions import SCOPE_KEY
from apex_runtime.precision.tensor_types import tensor_types

if TYPE_CHECKING:
    import onnx

_CODES, _ROUNDED = ".codes", ".rounded"
_STEPS = ".scale", ".zero_point"
_BIAS_CODES = 2.0**30  # half of what 32 bits hold


def with_rounded_nodes(
    model: onnx.ModelProto,
    original: onnx.ModelProto,
    placement: Placement,
    ranges: Mapping[str, Range],
    number_format: NumberFormat,
) -> onnx.ModelProto:
    """A copy of ``model`` with the roundings of ``placement``. ``original``: the graph before other passes, from which the
    weights come; names of nodes and the order of their inputs are those of before. ``ranges``: of every tensor of the placement.

    Names of tensors and nodes stay; what is new is named for the tensor it rounds.
    """
    from onnx import ModelProto

    changed = ModelProto()
    changed.CopyFrom(model)
    _Rounding(changed, original, placement, ranges, number_format).run()
    return changed


def steps_of(placement: Placement, ranges: Mapping[str, Range], number_format: NumberFormat) -> dict[str, Steps]:
    """The steps of every rounded tensor."""
    groups = ((group, number_format.steps([ranges[name] for name in group])) for group in placement.groups)
    return {name: steps for group, all_steps in groups for name, steps in zip(group, all_steps, strict=True)}


class _Rounding:
    """One graph on its way: which tensors have a rounded twin so far."""

    def __init__(
        self,
        model: onnx.ModelProto,
        original: onnx.ModelProto,
        placement: Placement,
        ranges: Mapping[str, Range],
        number_format: NumberFormat,
    ) -> None:
        self.model, self.placement, self.format = model, placement, number_format
        self.steps = steps_of(placement, ranges, number_format)
        self.weights = {tensor.name: tensor for tensor in original.graph.initializer}
        self.original = {node.name: node for node in original.graph.node}
        self.types = tensor_types(model)
        self.twins: dict[str, str] = {}
        self.nodes: list[onnx.NodeProto] = []

    def run(self) -> None:
        """Rewrites the graph in place."""
        from onnx import NodeProto

        for node in self.model.graph.node:
            twin = NodeProto()
            twin.CopyFrom(node)
            for index, name in enumerate(node.input):
                tensor = self.placement.edges.get((node.name, index))
                if tensor is not None:
                    twin.input[index] = self._rounded(name, self.steps[tensor], node)
            if node.name in self.placement.products:
                twin.input[1] = self._rounded_weight(node)
            self.nodes.append(twin)
        del self.model.graph.node[:]
        self.model.graph.node.extend(self.nodes)
        self._drop_unused_weights()

    def _rounded(self, name: str, steps: Steps, near: onnx.NodeProto) -> str:
        """The tensor ``name`` after rounding, made before its first reader ``near``."""
        if name not in self.twins:
            scale = _not_below(steps.scale, _numpy_type(self.types[name]))
            points = self._constants(name, scale, np.array(steps.zero_point).astype(self.format.activation_type))
            self._node("QuantizeLinear", [name, *points], name + _CODES, near)
            self._node("DequantizeLinear", [name + _CODES, *points], name + _ROUNDED, near)
            self.twins[name] = name + _ROUNDED
        return self.twins[name]

    def _rounded_weight(self, node: onnx.NodeProto) -> str:
        from onnx import numpy_helper

        source = self.original[node.name].input[1]
        name = f"{source}.{node.name}"  # a weight that two products share has the type of each
        if name not in self.twins:
            axis = _channel_axis(node, len(self.weights[source].dims))
            kind = _numpy_type(self.types[node.input[1]])
            weights = numpy_helper.to_array(self.weights[source])
            codes, scale = self.format.round_weights(weights, axis, kind, self._least_scale(node))
            points = self._constants(name, scale, np.zeros(len(scale), codes.dtype))
            self._constant(name + _CODES, codes)
            self._node("DequantizeLinear", [name + _CODES, *points], name + _ROUNDED, node, axis=axis)
            self.twins[name] = name + _ROUNDED
        return self.twins[name]

    def _least_scale(self, node: onnx.NodeProto) -> np.ndarray | float:
        """Of the weights of each channel: ONNX Runtime rounds a bias to 32-bit codes whose scale is the product of both others,
        and a bias that is out of their range becomes 0."""
        from onnx import numpy_helper

        bias = self.weights.get(self.original[node.name].input[2]) if len(node.input) > 2 else None
        if bias is None or self.format.name == "fp8":
            return 0.0
        scale = self.steps[self.placement.edges[node.name, 0]].scale
        return np.abs(numpy_helper.to_array(bias).astype(np.float64)) / (scale * _BIAS_CODES)

    def _constants(self, name: str, *values: np.ndarray) -> list[str]:
        return [self._constant(name + end, value) for end, value in zip(_STEPS, values, strict=True)]

    def _constant(self, name: str, value: np.ndarray) -> str:
        from onnx import numpy_helper

        self.model.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def _node(self, op: str, inputs: list[str], output: str, near: onnx.NodeProto, axis: int | None = None) -> None:
        """A node in the scope of the node ``near``."""
        from onnx import helper

        made = helper.make_node(op, inputs, [output], name=output)
        if axis is not None:
            made.attribute.append(helper.make_attribute("axis", axis))
        made.metadata_props.extend(prop for prop in near.metadata_props if prop.key == SCOPE_KEY)
        self.nodes.append(made)

    def _drop_unused_weights(self) -> None:
        used = {name for node in self.model.graph.node for name in node.input}
        kept = [tensor for tensor in self.model.graph.initializer if tensor.name in used]
        del self.model.graph.initializer[:]
        self.model.graph.initializer.extend(kept)


def _not_below(value: float, dtype: type[np.floating]) -> np.ndarray:
    """A scale, rounded up where the type cannot say it: rounded down, the largest numbers would saturate."""
    nearest = np.array(value, dtype)
    return nearest if float(nearest) >= value else np.nextafter(nearest, dtype(np.inf))


def _numpy_type(elem_type: int) -> type[np.floating]:
    from onnx import TensorProto

    return np.float16 if elem_type == TensorProto.FLOAT16 else np.float32


def _channel_axis(node: onnx.NodeProto, rank: int) -> int:
    """Of the weight, the axis of its output channels."""
    if node.op_type == "Conv":
        return 0
    transposed = next((item.i for item in node.attribute if item.name == "transB"), 0)
    return 0 if transposed else rank - 1
