"""Which precision a graph computes in, read off the graph: a file has no manifest beside it to say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apex_runtime.precision.plan import Precision

if TYPE_CHECKING:
    import onnx


def precision_of(model: onnx.ModelProto) -> Precision:
    """The coarsest that its passes left: fp8 or int8 where something is rounded, fp16 where a weight is float16, else fp32."""
    from onnx import TensorProto

    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    rounded = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    if any(types.get(name) == TensorProto.FLOAT8E4M3FN for node in rounded for name in node.input[2:]):
        return "fp8"
    if rounded:
        return "int8"
    return "fp16" if TensorProto.FLOAT16 in types.values() else "fp32"
