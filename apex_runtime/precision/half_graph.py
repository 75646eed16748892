"""Some nodes of a graph in float16, the others as they were: casts where the types meet, each tensor cast at most once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from apex_runtime.precision.regions import SCOPE_KEY
from apex_runtime.precision.tensor_types import tensor_types

if TYPE_CHECKING:
    import onnx

_HALF, _FULL = ".float16", ".float32"


def with_half_nodes(model: onnx.ModelProto, halved: Mapping[str, tuple[int, ...]], types: Mapping[str, int]) -> onnx.ModelProto:
    """A copy in which the nodes ``halved`` read the inputs of these numbers in float16 and write float16 for float32.

    ``types``: of every tensor before. Names of tensors and nodes stay; a cast bears the name of the tensor that it writes.
    """
    from onnx import ModelProto

    changed = ModelProto()
    changed.CopyFrom(model)
    _Rewriting(changed, halved, types).run()
    return changed


class _Rewriting:
    """One graph on its way: which tensors are float16 so far, and what was cast."""

    def __init__(self, model: onnx.ModelProto, halved: Mapping[str, tuple[int, ...]], types: Mapping[str, int]) -> None:
        self.model, self.halved, self.types = model, halved, types
        self.outputs = {value.name for value in model.graph.output}
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.half: dict[str, str] = {}  # tensor of before -> the one that holds it in float16
        self.full: dict[str, str] = {}  # tensor of before that is written in float16 -> the one that holds it in float32
        self.written: set[str] = set()  # what a halved node writes
        self.nodes: list[onnx.NodeProto] = []

    def run(self) -> None:
        """Rewrites the graph in place."""
        graph = self.model.graph
        for node in graph.node:
            taken = self.halved.get(node.name, ())
            for index, name in enumerate(node.input):
                if index in taken:
                    node.input[index] = self._in_half(name, node)
                elif name in self.written:
                    node.input[index] = self._in_full(name, node)
            self.nodes.append(node)
            if node.name in self.halved:
                self._write_half(node)
        nodes = [_copy(node) for node in self.nodes]
        del graph.node[:]
        graph.node.extend(nodes)
        self._drop_unused()
        self._type_anew()

    def _in_half(self, name: str, near: onnx.NodeProto) -> str:
        if name not in self.half:
            self.half[name] = name + _HALF
            if name in self.weights:
                self.model.graph.initializer.append(_rounded(self.weights[name], name + _HALF))
            else:
                self._cast(name, name + _HALF, near)
        return self.half[name]

    def _in_full(self, name: str, near: onnx.NodeProto) -> str:
        if name not in self.full:
            self.full[name] = name + _FULL
            self._cast(self.half[name], name + _FULL, near)
        return self.full[name]

    def _write_half(self, node: onnx.NodeProto) -> None:
        """Outputs of the graph keep name and type behind a cast; other tensors keep the name and change the type."""
        from onnx import TensorProto

        for index, name in enumerate(node.output):
            if self.types.get(name) != TensorProto.FLOAT:
                continue
            self.written.add(name)
            self.half[name] = name
            if name in self.outputs:
                self.half[name] = node.output[index] = name + _HALF
                self.full[name] = name
                self._cast(name + _HALF, name, node)

    def _cast(self, source: str, target: str, near: onnx.NodeProto) -> None:
        """A cast in the scope of the node ``near`` that asked for it."""
        from onnx import TensorProto, helper

        to = TensorProto.FLOAT16 if target.endswith(_HALF) else TensorProto.FLOAT
        cast = helper.make_node("Cast", [source], [target], name=f"cast.{target}", to=to)
        cast.metadata_props.extend(prop for prop in near.metadata_props if prop.key == SCOPE_KEY)
        self.nodes.append(cast)

    def _drop_unused(self) -> None:
        used = {name for node in self.model.graph.node for name in node.input} | self.outputs
        kept = [tensor for tensor in self.model.graph.initializer if tensor.name in used]
        del self.model.graph.initializer[:]
        self.model.graph.initializer.extend(kept)

    def _type_anew(self) -> None:
        """What the file says of its tensors' types; shapes did not change."""
        types = tensor_types(self.model)
        for value in self.model.graph.value_info:
            value.type.tensor_type.elem_type = types.get(value.name, value.type.tensor_type.elem_type)


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    from onnx import NodeProto

    twin = NodeProto()
    twin.CopyFrom(node)
    return twin


def _rounded(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    from onnx import numpy_helper

    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), name)
