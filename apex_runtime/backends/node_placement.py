"""Which nodes of a graph ONNX Runtime placed elsewhere than asked, and whether they compute with floating point numbers.

``InferenceSession.get_provider_graph_assignment_info`` (ONNX Runtime 1.24) tells the provider of every node as placed by the
partitioner: no run and no parsing of logs is needed. It tells names and not types, so the graph is prepared for the question:
functions inlined as ONNX Runtime would, every node named, the type of every node's outputs inferred.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from apex_runtime.backends.host_shapes import fix_known_sides
from apex_runtime.backends.reasons import ReasonCode, backend_error

if TYPE_CHECKING:
    import onnx
    import onnxruntime

RECORD_PLACEMENT = "session.record_ep_graph_assignment_info"

# Nodes of ONNX Runtime's own making are not in our table. These move what others computed; those others are judged themselves.
_MOVES = frozenset({"Cast", "Transpose", "MemcpyToHost", "MemcpyFromHost"})


@dataclass(frozen=True)
class NamedGraph:
    """A model with a name on every node, and which of those compute floats."""

    data: bytes
    is_float: dict[str, bool]


def name_nodes(model: onnx.ModelProto) -> NamedGraph:
    """The same graph, flat, with its known sides as constants, ready for the question. Of unknown type: counts as floats."""
    from onnx import TensorProto, inliner, shape_inference

    floats = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.UNDEFINED}
    flat = shape_inference.infer_shapes(inliner.inline_local_functions(model), data_prop=True)
    fix_known_sides(flat)
    types = {value.name: value.type.tensor_type.elem_type for value in (*flat.graph.value_info, *flat.graph.output)}
    is_float = {}
    for index, node in enumerate(flat.graph.node):
        node.name = f"node{index}.{node.op_type}"
        is_float[node.name] = any(types.get(name, TensorProto.UNDEFINED) in floats for name in node.output if name)
    return NamedGraph(flat.SerializeToString(), is_float)


def float_nodes_outside(session: onnxruntime.InferenceSession, provider: str, is_float: dict[str, bool]) -> list[str]:
    """Names of the nodes that compute floats and are not on ``provider``; integer shape arithmetic may be anywhere.

    Raises BackendError when this ONNX Runtime does not tell.
    """
    ask = getattr(session, "get_provider_graph_assignment_info", None)
    if ask is None:
        raise backend_error(ReasonCode.NODE_PLACEMENT_UNKNOWN, "This ONNX Runtime does not say where it runs each node.")
    outside = [node for part in ask() if part.ep_name != provider for node in part.get_nodes()]
    return [node.name or node.op_type for node in outside if is_float.get(node.name, node.op_type not in _MOVES)]
