"""Matrix products written as multiply and sum, for a target that has none in fp32.

TensorRT for RTX 1.7 refuses an FP32 MatMul for Turing ("FP32 GEMM is not supported"). Plans for Turing are therefore built from a
graph in which A @ B is the sum over k of A[..., m, k, 1] * B[..., 1, k, n]: the same numbers in fp32, at the price of speed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

FIRST_WITH_FP32_GEMM = 80  # compute capability; below it is Turing
NOTE = "MatMul as multiply and sum in fp32: TensorRT for RTX has no FP32 matrix product on Turing; expect it to be slower there"

_PREFIX = "apex_mm"


def without_matrix_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model with its local functions inlined and every MatMul of two tensors of rank >= 2 spelled out."""
    from onnx import helper, inliner, numpy_helper, shape_inference

    flat = inliner.inline_local_functions(model)
    ranks = _ranks(shape_inference.infer_shapes(flat))
    nodes = []
    for index, node in enumerate(flat.graph.node):
        # An unknown rank is at least 2 in our graphs: a vector would come from a constant, whose shape is known.
        if node.op_type == "MatMul" and all(ranks.get(name, 2) >= 2 for name in node.input):
            nodes += _spelled_out(node, f"{_PREFIX}{index}_")
        else:
            nodes.append(node)
    axes = {"last": -1, "third": -3, "second": -2}
    constants = [numpy_helper.from_array(np.array([axis], np.int64), f"{_PREFIX}_{name}") for name, axis in axes.items()]
    del flat.graph.node[:]
    flat.graph.node.extend([helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in constants])
    flat.graph.node.extend(nodes)
    return flat


def _spelled_out(node: onnx.NodeProto, prefix: str) -> list[onnx.NodeProto]:
    from onnx.helper import make_node

    left, right, product = prefix + "left", prefix + "right", prefix + "product"
    return [
        make_node("Unsqueeze", [node.input[0], f"{_PREFIX}_last"], [left], name=left),
        make_node("Unsqueeze", [node.input[1], f"{_PREFIX}_third"], [right], name=right),
        make_node("Mul", [left, right], [product], name=product),
        make_node("ReduceSum", [product, f"{_PREFIX}_second"], [node.output[0]], name=node.name, keepdims=0),
    ]


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    """Ranks of all tensors that are known."""
    graph = model.graph
    ranks = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            ranks[value.name] = len(value.type.tensor_type.shape.dim)
    return ranks
