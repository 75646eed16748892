"""A graph for ONNX Runtime on a GPU in which no number crosses between host and device.

A session with such copies waits in every run and cannot be captured as a CUDA graph. ONNX Runtime keeps on the host what shapes
are made of, and what is computed from shapes alone. Two things of ours break that rule, and are put right here:

* numbers of tiles come in as arrays, which lie on the device: they are read off the shape of an input instead;
* bodies of functions compute addresses from the sides of images and maps: those are known, and become constants.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_SUFFIX = ".as_shape"


def shape_input(name: str) -> str:
    """The name of the input that takes the place of ``name``: uint8 [K], of which nothing but K is read."""
    return name + _SUFFIX


def with_shape_inputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The model with each of the inputs ``names``, int64 [1], read off the shape of an input of its own (``shape_input``)."""
    from onnx import ModelProto, TensorProto, helper

    changed = ModelProto()
    changed.CopyFrom(model)
    kept = [value for value in changed.graph.input if value.name not in names]
    shapes = [helper.make_tensor_value_info(shape_input(name), TensorProto.UINT8, [f"number_of_{name}"]) for name in names]
    nodes = [helper.make_node("Shape", [shape_input(name)], [name]) for name in names]
    nodes += changed.graph.node
    del changed.graph.input[:], changed.graph.node[:]
    changed.graph.input.extend([*kept, *shapes])
    changed.graph.node.extend(nodes)
    return changed


def fix_known_sides(flat: onnx.ModelProto) -> None:
    """In place: ``Gather(Shape(x), i)`` of a side that shape inference knows becomes a constant. The graph calls no function."""
    from onnx import helper

    sides = {output: size for output, size in _known_sides(flat)}
    for node in flat.graph.node:
        if node.op_type == "Gather" and node.output[0] in sides:
            name, output = node.name, node.output[0]
            node.CopyFrom(helper.make_node("Constant", [], [output], name=name, value_int=sides[output]))


def _known_sides(flat: onnx.ModelProto) -> Iterator[tuple[str, int]]:
    """The output of every such Gather, with the side."""
    values = (*flat.graph.value_info, *flat.graph.input, *flat.graph.output)
    dims = {value.name: value.type.tensor_type.shape.dim for value in values if value.type.tensor_type.HasField("shape")}
    shape_of = {node.output[0]: node.input[0] for node in flat.graph.node if node.op_type == "Shape" and not node.attribute}
    places = dict(_scalars(flat))
    for node in flat.graph.node:
        if node.op_type != "Gather" or node.input[0] not in shape_of or node.input[1] not in places:
            continue
        of, place = dims.get(shape_of[node.input[0]], ()), places[node.input[1]]
        if place < len(of) and of[place].HasField("dim_value"):
            yield node.output[0], of[place].dim_value


def _scalars(flat: onnx.ModelProto) -> Iterator[tuple[str, int]]:
    """Constants that are one whole number >= 0, without dimensions: what a side is asked for by."""
    for node in flat.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value_int" and node.attribute[0].i >= 0:
            yield node.output[0], node.attribute[0].i
