"""Element types in a graph: of every tensor, and which nodes can compute in float16 at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from apex_runtime.errors import ModelError
from apex_runtime.precision.regions import EXPORT_AGAIN

if TYPE_CHECKING:
    import onnx

_HALF = "tensor(float16)"


def tensor_types(model: onnx.ModelProto) -> dict[str, int]:
    """TensorProto.DataType of every tensor of the graph, by name, inferred anew. Raises ModelError for a graph that contradicts
    itself."""
    import onnx

    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    try:
        known = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:  # onnx has no common base class for what it finds
        raise ModelError(f"The graph contradicts itself: {str(error).strip()[:300]}.", EXPORT_AGAIN) from error
    values = (*known.graph.input, *known.graph.value_info, *known.graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in known.graph.initializer}


def half_inputs(node: onnx.NodeProto, types: Mapping[str, int], model: onnx.ModelProto) -> tuple[int, ...] | None:
    """Which inputs are float16 when the node computes in float16; None where its op cannot, or reads no float32.

    An op can when float16 inputs make every float32 output float16, as far as it has any: Cast, say, fixes the type by other
    means.
    """
    floats = [index for index, name in enumerate(node.input) if _is_float(types, name)]
    if not floats:
        return None
    function = next((item for item in model.functions if (item.domain, item.name) == (node.domain, node.op_type)), None)
    if function is not None:
        return None if _fixes_type(function.node) else tuple(floats)
    return _by_schema(node, floats, types, model)


def _by_schema(
    node: onnx.NodeProto, floats: list[int], types: Mapping[str, int], model: onnx.ModelProto
) -> tuple[int, ...] | None:
    import onnx

    version = next((item.version for item in model.opset_import if item.domain == node.domain), 0)
    if not version or not onnx.defs.has(node.op_type, node.domain):
        return None
    schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    allowed = {item.type_param_str: item.allowed_type_strs for item in schema.type_constraints}
    taken = [index for index in floats if _HALF in allowed.get(_formal(schema.inputs, index), ())]
    halved = {_formal(schema.inputs, index) for index in taken}
    made = {_formal(schema.outputs, index) for index, name in enumerate(node.output) if _is_float(types, name)}
    return tuple(taken) if taken and made <= halved else None


def _formal(parameters: Iterable[onnx.defs.OpSchema.FormalParameter], index: int) -> str:
    """The type variable of an input or output; the last one stands for all that follow where it is variadic."""
    formal = list(parameters)
    return str(formal[min(index, len(formal) - 1)].type_str)


def _is_float(types: Mapping[str, int], name: str) -> bool:
    import onnx

    return bool(name) and types.get(name) == onnx.TensorProto.FLOAT


def _fixes_type(nodes: Iterable[onnx.NodeProto]) -> bool:
    """Whether a function body has a float32 of its own: a constant, or a Cast. CastLike follows its second input."""
    return any(_names_float(node) for node in _walk(nodes))


def _names_float(node: onnx.NodeProto) -> bool:
    import onnx

    return any(
        attribute.name in ("value_float", "value_floats")
        or (attribute.name in ("to", "dtype") and attribute.i == onnx.TensorProto.FLOAT)
        or attribute.t.data_type == onnx.TensorProto.FLOAT
        for attribute in node.attribute
    )


def _walk(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _walk(attribute.g.node)
