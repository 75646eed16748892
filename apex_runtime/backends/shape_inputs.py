"""Numbers of tiles as the shapes of inputs, for ONNX Runtime on a GPU.

A number that comes in as an input lies in the GPU's memory for those who compute with it there, and is needed on the host by
those who make shapes of it (TopK, Concat, Range): ONNX Runtime copies it over in every run, and a session with such copies cannot
be captured as a CUDA graph. A shape is on the host from the start, and so is what is computed from it.
"""

from __future__ import annotations

from collections.abc import Sequence
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
