"""Post-conditions of an export that the file alone decides: valid, typed, named as agreed, complete, no forbidden op."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx

from apex_plugins.spec import DOMAIN
from apex_runtime.errors import ModelError
from apex_runtime.model_info import Decode, input_names, output_names
from apex_train.export.ops import load_ops
from apex_train.export.trace import SCOPE_KEY

# They break CUDA graphs, TensorRT shape tensors or the RTX builder (DESIGN rule 4).
FORBIDDEN_OPS = frozenset({"NonZero", "If", "Loop", "Unique", "Compress", "NonMaxSuppression", "RoiAlign"})
REQUIRED_FUNCTIONS = ("TilePack", "TileSSMScan", "TileUnpackFusion")
NMS_FUNCTION = "DecodeNMS"


class ExportError(ModelError):
    """An export broke one of its post-conditions; nothing was written. ``code`` names the post-condition."""

    def __init__(self, condition: str, detail: str) -> None:
        remedy = "Nothing was written. This is a fault of apex-train or of a library version, not of your data: please report it."
        super().__init__(f"export stopped: post-condition '{condition}' failed: {detail}.", remedy, code=condition)


def check_structure(model: onnx.ModelProto, decode: Decode = "topk", depth: int = 1) -> None:
    """Raises ExportError for the first post-condition that does not hold. ``decode``: how the graph is meant to end; ``depth``:
    how many levels of tiles it is meant to have."""
    _check_valid(model)
    _check_names(model, depth)
    _check_functions(model, decode, depth)
    _check_ops(model)
    _check_scans(model, decode)


def all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node: of the graph, of the function bodies, and of the sub-graphs of either."""
    yield from _walk(model.graph.node)
    for function in model.functions:
        yield from _walk(function.node)


def _walk(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _walk(graph.node)


def _check_valid(model: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the checker's exceptions share no base class
        raise ExportError("checker", str(error).strip()) from error
    try:
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:
        raise ExportError("shape_inference", str(error).strip()) from error


def _check_names(model: onnx.ModelProto, depth: int) -> None:
    initializers = {tensor.name for tensor in model.graph.initializer}
    sides = (("inputs", model.graph.input, input_names(depth)), ("outputs", model.graph.output, output_names(depth)))
    for kind, values, wanted in sides:
        found = tuple(value.name for value in values if value.name not in initializers)
        if found != wanted:
            raise ExportError("names", f"the {kind} are {', '.join(found)}, expected {', '.join(wanted)}")


def _check_functions(model: onnx.ModelProto, decode: Decode, depth: int) -> None:
    present = {function.name for function in model.functions if function.domain == DOMAIN}
    known = {op.spec.name: op.spec for op in load_ops().values()}
    calls = [node for node in model.graph.node if node.domain == DOMAIN]
    missing = {node.op_type for node in calls} - present
    if missing:
        raise ExportError("functions", f"no body for {', '.join(sorted(missing))}")
    wanted = {*REQUIRED_FUNCTIONS, NMS_FUNCTION} if decode == "nms" else set(REQUIRED_FUNCTIONS)
    absent = wanted - {node.op_type for node in calls}
    if absent:
        raise ExportError("functions", f"the graph does not call {', '.join(sorted(absent))}")
    for name in ("TilePack", "TileUnpackFusion"):
        found = sum(node.op_type == name for node in calls)
        if found != depth:
            raise ExportError("functions", f"the graph calls {name} {found} times, expected once for each of {depth} levels")
    for node in calls:
        given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        version = str(known[node.op_type].version).encode()
        if given.get("plugin_namespace") != DOMAIN.encode() or given.get("plugin_version") != version:
            raise ExportError("functions", f"{node.op_type} does not carry its plugin_namespace and plugin_version")


def _check_ops(model: onnx.ModelProto) -> None:
    used = {node.op_type for node in all_nodes(model)}
    if used & FORBIDDEN_OPS:
        raise ExportError("forbidden_ops", f"the graph holds {', '.join(sorted(used & FORBIDDEN_OPS))}")
    if "BatchNormalization" in used:
        raise ExportError("folded_norms", "a batch norm was not folded into its convolution")
    if not any(prop.key == SCOPE_KEY for node in model.graph.node for prop in node.metadata_props):
        raise ExportError("scopes", "the nodes do not say which module they come from")


def _check_scans(model: onnx.ModelProto, decode: Decode) -> None:
    """One Scan, in the body of DecodeNMS, where a sequential greedy pass is the meaning of the op (DESIGN rule 12); no other."""
    bodies = {"the graph": model.graph.node} | {function.name: function.node for function in model.functions}
    found = {where: count for where, nodes in bodies.items() if (count := sum(n.op_type == "Scan" for n in _walk(nodes)))}
    allowed = {NMS_FUNCTION: 1} if decode == "nms" else {}
    if found != allowed:
        shown = ", ".join(f"{count} in {where}" for where, count in found.items()) or "none"
        raise ExportError("scans", f"Scan nodes: {shown}; with --decode {decode} there must be {sum(allowed.values())}")
