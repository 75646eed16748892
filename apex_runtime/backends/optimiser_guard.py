"""A guard against two optimisers of ONNX Runtime that give wrong results on rounded graphs, without a word (seen in 1.32).

``ReluQuantRewrite`` removes a Relu before a QuantizeLinear whose zero point is 0, because unsigned codes clip there. FP8 codes
are signed: negative numbers come through.

``WeightBiasQuantization`` rounds the bias of a convolution to 32-bit codes whose scale is the product of two others. With scales
in float16 that product has few digits left, or none: the default engine, balanced, fell from 52.7 to 25.1 points of mask AP.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx

RELU_REWRITE = "ReluQuantRewrite"
BIAS_ROUNDING = "WeightBiasQuantization"
_ROUNDERS = ("QuantizeLinear", "DequantizeLinear")


def disabled_optimizers(data: bytes) -> list[str]:
    """What ``InferenceSession(..., disabled_optimizers=...)`` must be given for the serialised model ``data``."""
    model = onnx.ModelProto.FromString(data)
    graphs = (model.graph, *model.functions)
    nodes = [node for graph in graphs for node in _walk(graph.node)]
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    types |= {value.name: value.type.tensor_type.elem_type for graph in graphs for value in graph.value_info}
    types |= {name: item.t.data_type for node in nodes for item in node.attribute if item.HasField("t") for name in node.output}
    rounders = [node for node in nodes if node.op_type in _ROUNDERS]
    has_fp8 = any(code in _fp8_types() for node in rounders for code in _codes(node, types))
    has_half = any(types.get(node.input[1]) == onnx.TensorProto.FLOAT16 for node in rounders)
    return [RELU_REWRITE] * has_fp8 + [BIAS_ROUNDING] * (has_fp8 or has_half)


def _walk(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes, and those of their branches and loops."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from _walk(attribute.g.node)


def _codes(node: onnx.NodeProto, types: dict[str, int]) -> Iterator[int]:
    """The types that a rounding node shows: of its zero point, its codes, and by name."""
    yield from (types.get(name, onnx.TensorProto.UNDEFINED) for name in (*node.input, *node.output))
    yield from (item.i for item in node.attribute if item.name == "output_dtype")


def _fp8_types() -> frozenset[int]:
    kinds = onnx.TensorProto
    return frozenset((kinds.FLOAT8E4M3FN, kinds.FLOAT8E4M3FNUZ, kinds.FLOAT8E5M2, kinds.FLOAT8E5M2FNUZ))
