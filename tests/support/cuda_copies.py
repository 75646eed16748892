"""Which tensors ONNX Runtime's CUDA provider would copy between host and device, without a GPU.

Its rules, in few words: shapes are made on the host; a node whose inputs are all on the host (or small constants, or inputs of
the graph) is kept there too, unless the provider's own kernel reads them from the host anyway; whatever is then needed on the
other side is copied. On an H200 it made exactly as many copies as this says for the engine that comes along: 16 as exported, 9
with the numbers of tiles as shapes (bench/evidence/gpu-ort-cuda.json).
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from pathlib import Path

import onnx
import onnxruntime

_HOST_OUTPUTS = {"Shape", "Size"}
# Inputs that the provider's kernels read from the host, by place.
_HOST_INPUTS = {
    "Reshape": {1},
    "Expand": {1},
    "Slice": {1, 2, 3, 4},
    "TopK": {1},
    "Range": {0, 1, 2},
    "Tile": {1},
    "ConstantOfShape": {0},
    "Resize": {1, 2, 3},
    "Unsqueeze": {1},
    "Squeeze": {1},
    "CumSum": {1},
    "Pad": {1, 2, 3},
    "Split": {1},
    "ReduceSum": {1},
    "ReduceMax": {1},
    "ReduceMean": {1},
}
_SMALL = 100  # numbers of a constant that may be on the host as well


def copied_tensors(model: bytes, folder: Path) -> set[str]:
    """Names of the tensors that would be copied, after ONNX Runtime's own folding of constants."""
    graph = _folded(model, folder).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    on_host, host_nodes = _on_host(graph, constants)
    copied = set()
    for node in graph.node:
        for place, name in enumerate(node.input):
            wanted = node.name in host_nodes or place in _HOST_INPUTS.get(node.op_type, ())
            if name and name not in constants and wanted != (name in on_host):
                copied.add(name)
    return copied


def _folded(model: bytes, folder: Path) -> onnx.ModelProto:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "folded.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "folded.onnx")


def _on_host(graph: onnx.GraphProto, constants: dict[str, onnx.TensorProto]) -> tuple[set[str], set[str]]:
    """Tensors and nodes that are on the host; tensors that a kernel on the device leaves there included."""
    free = {value.name for value in graph.input} | {
        name for name, tensor in constants.items() if int(onnx.numpy_helper.to_array(tensor).size) <= _SMALL
    }
    users: dict[str, list[int]] = defaultdict(list)
    for place, node in enumerate(graph.node):
        for name in node.input:
            users[name].append(place)
    tensors = {name for node in graph.node if node.op_type in _HOST_OUTPUTS for name in node.output}
    nodes, seen, waiting = set(), set(), sorted({place for name in tensors for place in users[name]})
    while waiting:
        place = heapq.heappop(waiting)
        node = graph.node[place]
        if place in seen or not all(
            not name or name in free or (name in tensors and at not in _HOST_INPUTS.get(node.op_type, ()))
            for at, name in enumerate(node.input)
        ):
            continue
        seen.add(place)
        nodes.add(node.name)
        tensors |= set(node.output)
        for name in node.output:
            for user in users[name]:
                heapq.heappush(waiting, user)
    return tensors, nodes
