"""Slices of a graph: the nodes that lead from tensors whose values are known to tensors that are asked for, run by ONNX Runtime.

A slice keeps the functions of the model; what it is fed and what it gives are tensors of the graph under their own names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from apex_runtime.backends.ort import BACKEND_NAME, execution_error, open_session, session_options

if TYPE_CHECKING:
    import onnx
    import onnxruntime

Arrays = dict[str, np.ndarray]
_BESIDE = ".beside"  # what a node of a slice writes besides, where the tensor itself is fed
_PROVIDERS = ["CPUExecutionProvider"]


class Graph:
    """One model, cut up. ``path`` is for messages; ``threads`` those of one run."""

    def __init__(self, model: onnx.ModelProto, path: Path, threads: int | None = None) -> None:
        self.model, self.path, self.threads = model, path, threads
        self.nodes = list(model.graph.node)
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.producer = {name: at for at, node in enumerate(self.nodes) for name in node.output if name}
        self.inputs = {value.name: value for value in model.graph.input if value.name not in self.weights}
        self.types = element_types(model)

    def walk(self, targets: Iterable[str], known: Collection[str]) -> tuple[set[str], set[int]]:
        """Back from ``targets``, not beyond ``known``: which of ``known`` are met, and the numbers of the nodes on the way."""
        met: set[str] = set()
        indices: set[int] = set()
        waiting = list(targets)
        while waiting:
            name = waiting.pop()
            if name in known:
                met.add(name)
            elif name in self.producer and self.producer[name] not in indices:
                indices.add(self.producer[name])
                waiting.extend(reads(self.nodes[self.producer[name]]))
        return met, indices

    def slice(self, targets: Sequence[str], feeds: Arrays) -> tuple[onnx.ModelProto, Arrays]:
        """The model from ``feeds`` to ``targets``, and those of ``feeds`` that it needs in the types that it has them in."""
        from onnx import ModelProto, ValueInfoProto

        met, indices = self.walk(targets, feeds)
        cut = ModelProto(ir_version=self.model.ir_version, opset_import=self.model.opset_import, functions=self.model.functions)
        cut.graph.name = self.model.graph.name
        cut.graph.node.extend(_beside(self.nodes[at], met) for at in sorted(indices))
        names = dict.fromkeys(name for at in sorted(indices) for name in reads(self.nodes[at]))
        cut.graph.initializer.extend(self.weights[name] for name in names if name in self.weights)
        given = {name: _in_type(feeds[name], self.types.get(name, 0)) for name in names if name in met}
        cut.graph.input.extend(self._input(name, array) for name, array in given.items())
        cut.graph.output.extend(ValueInfoProto(name=name) for name in targets)
        _keep_functions(cut)
        return cut, given

    def run(self, targets: Sequence[str], feeds: Arrays) -> Arrays:
        """The values of ``targets``, computed from those of ``feeds``. Raises BackendError."""
        cut, given = self.slice(targets, feeds)
        return run_session(open_model(cut, self.path, self.threads), given)

    def _input(self, name: str, array: np.ndarray) -> onnx.ValueInfoProto:
        return self.inputs[name] if name in self.inputs else value_info(name, array)


def value_info(name: str, array: np.ndarray) -> onnx.ValueInfoProto:
    """An input or output of the array's type and shape."""
    from onnx import helper

    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def open_model(model: onnx.ModelProto, path: Path, threads: int | None = None) -> onnxruntime.InferenceSession:
    """A session that holds no memory between its runs. Raises BackendError."""
    options = session_options(threads)
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    return open_session(path, model.SerializeToString(), options, _PROVIDERS)


def run_session(session: onnxruntime.InferenceSession, feeds: Arrays) -> Arrays:
    """Every output by name. Raises BackendError."""
    names = [value.name for value in session.get_outputs()]
    try:
        return dict(zip(names, session.run(names, feeds), strict=True))
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        raise execution_error(BACKEND_NAME, error, 1, 0) from error


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads, those that its inner graphs take from outside included."""
    yield from filter(None, node.input)
    yield from captured(node)


def captured(node: onnx.NodeProto) -> Iterator[str]:
    """Names that the inner graphs of a node take from outside."""
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            own = {name for inner in graph.node for name in inner.output} | {value.name for value in graph.input}
            own |= {tensor.name for tensor in graph.initializer}
            yield from (name for inner in graph.node for name in reads(inner) if name not in own)
            yield from (value.name for value in graph.output if value.name not in own)


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """TensorProto.DataType by name, as far as it can be told: a graph with a fault may contradict itself."""
    import onnx

    try:
        known = onnx.shape_inference.infer_shapes(model)
    except Exception:  # onnx has no common base class for what it finds
        known = model
    values = (*known.graph.value_info, *known.graph.output, *known.graph.input)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def _beside(node: onnx.NodeProto, fed: set[str]) -> onnx.NodeProto:
    """The node; what it writes and is fed gets another name, so that no name means two things."""
    if not fed & set(node.output):
        return node
    from onnx import NodeProto

    copy = NodeProto()
    copy.CopyFrom(node)
    copy.output[:] = [name + _BESIDE if name in fed else name for name in node.output]
    return copy


def _in_type(array: np.ndarray, wanted: int) -> np.ndarray:
    """A float array in the type that the slice wants; anything else as it is."""
    from onnx import helper

    if wanted and np.issubdtype(array.dtype, np.floating):
        return array.astype(helper.tensor_dtype_to_np_dtype(wanted), copy=False)
    return array


def _keep_functions(model: onnx.ModelProto) -> None:
    """Drop the functions that no node calls, directly or through another."""
    bodies = {(item.domain, item.name): item for item in model.functions}
    called: set[tuple[str, str]] = set()
    waiting = [(node.domain, node.op_type) for node in model.graph.node]
    while waiting:
        name = waiting.pop()
        if name in bodies and name not in called:
            called.add(name)
            waiting.extend((node.domain, node.op_type) for node in bodies[name].node)
    kept = [bodies[name] for name in bodies if name in called]
    del model.functions[:]
    model.functions.extend(kept)


def values_of(graph: Graph, names: Iterable[str], known: Mapping[str, np.ndarray]) -> Arrays:
    """The values of ``names``: those of ``known``, the others computed from them. Raises BackendError."""
    wanted = list(dict.fromkeys(names))
    missing = [name for name in wanted if name not in known]
    found = graph.run(missing, dict(known)) if missing else {}
    return {name: known[name] if name in known else found[name] for name in wanted}
