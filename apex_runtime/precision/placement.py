"""Where a graph is rounded to eight bits: which nodes compute on rounded numbers, which of their inputs, and who shares a scale.

A *product* is a convolution or a matrix product with constant weights: it reads rounded data and rounded weights. What only
passes numbers on (Relu, Slice) is left alone. Two habits, because those who run the graph look for two patterns:

* ONNX Runtime's CPU kernels take eight bits in and give eight bits out. A product whose result somebody reads in full stays as
  it is, and both inputs of a residual sum are rounded, with one scale.
* TensorRT takes eight bits in and joins a residual sum to the product before it, so only the other input of the sum is rounded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

PRODUCTS = ("Conv", "Gemm", "MatMul")
_PASSING = frozenset({"Relu", "MaxPool", "Slice", "Reshape", "Transpose", "Identity"})
_FP8_CHANNELS = 16  # TensorRT has FP8 kernels for channels in sixteens

Edge = tuple[str, int]  # name of a node, number of its input


@dataclass(frozen=True)
class Placement:
    """What is rounded. ``edges``: inputs that read the rounded tensor; ``products``: nodes whose weights are rounded, too;
    ``sums``: other nodes whose inputs and result all are; ``groups``: tensors of one scale; ``refused``: node -> why not."""

    edges: Mapping[Edge, str]
    products: frozenset[str]
    sums: frozenset[str]
    groups: tuple[tuple[str, ...], ...]
    refused: Mapping[str, str]

    @property
    def tensors(self) -> tuple[str, ...]:
        """Every rounded activation, once."""
        return tuple(name for group in self.groups for name in group)


def place(model: onnx.ModelProto, candidates: frozenset[str], result_too: bool, sixteens: bool = False) -> Placement:
    """Placement among the nodes ``candidates``. ``result_too``: the habit of ONNX Runtime's CPU kernels, else TensorRT's;
    ``sixteens``: products must have channels in sixteens and no groups."""
    return _Placing(model, candidates, result_too, sixteens).run()


class _Placing:
    def __init__(self, model: onnx.ModelProto, candidates: frozenset[str], result_too: bool, sixteens: bool) -> None:
        self.nodes = {node.name: node for node in model.graph.node}
        self.candidates, self.result_too, self.sixteens = candidates, result_too, sixteens
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.given = {value.name for value in model.graph.output}
        self.producer = {name: node for node in model.graph.node for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in model.graph.node:
            for name in node.input:
                self.readers[name].append(node)
        self.refused: dict[str, str] = {}

    def run(self) -> Placement:
        products = [node for node in self.nodes.values() if node.name in self.candidates and self._is_product(node)]
        fed = {node.input[0] for node in products}
        while True:
            sums = self._sums(products)
            rounded = {node.input[0] for node in products}
            rounded |= {name for node in sums for name in self._rounded_inputs(node, products)}
            if self.result_too:  # the last product of a chain reads in eight bits what it then computes in full
                rounded |= fed & {self._result(node) for node in products}
            kept = [node for node in products if not self._is_read_in_full(node, rounded)]
            if len(kept) == len(products):
                return self._placement(products, sums, rounded)
            products = kept

    def _is_product(self, node: onnx.NodeProto) -> bool:
        if node.op_type not in PRODUCTS or node.domain:
            return False
        weight = self.weights.get(node.input[1])
        if weight is None or node.input[0] in self.weights:
            self.refused[node.name] = "its second input is no weight"
        elif self.sixteens and not _in_sixteens(node, weight):
            self.refused[node.name] = "its channels do not come in sixteens: there is no FP8 kernel for it"
        return node.name not in self.refused

    def _result(self, node: onnx.NodeProto) -> str:
        """The tensor that is rounded behind a product or a sum: past a Relu that alone reads it."""
        name, readers = node.output[0], self.readers[node.output[0]]
        alone = len(readers) == 1 and readers[0].op_type == "Relu" and readers[0].name in self.candidates
        return readers[0].output[0] if alone and name not in self.given else name

    def _is_read_in_full(self, node: onnx.NodeProto, rounded: set[str]) -> bool:
        """Whether ONNX Runtime would find no rounding behind this product."""
        if not self.result_too:
            return False
        result = self._result(node)
        full = (
            result not in rounded
            or result in self.given
            or any(item.name not in self.candidates for item in self.readers[result])
        )
        if full:
            self.refused[node.name] = "its result is read in full"
        return full

    def _sums(self, products: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
        """Residual sums and joins of channels among the candidates, between products."""
        names = {node.name for node in products}
        read = {node.input[0] for node in products}
        return [
            node
            for node in self.nodes.values()
            if node.name in self.candidates
            and node.op_type in ("Add", "Concat")
            and len(set(node.input)) > 1
            and all(name in read or self._made_by(name, names) for name in node.input)
            and any(self._made_by(name, names) for name in node.input)
        ]

    def _made_by(self, name: str, names: set[str]) -> bool:
        node = self.producer.get(name)
        while node is not None and node.name not in names and node.op_type in _PASSING:
            node = self.producer.get(node.input[0])
        return node is not None and node.name in names

    def _rounded_inputs(self, node: onnx.NodeProto, products: Sequence[onnx.NodeProto]) -> list[str]:
        """Both inputs of a sum; for TensorRT without the one that a product before it writes."""
        if self.result_too or node.op_type == "Concat":
            return list(node.input)
        direct = {item.output[0] for item in products}
        joined = next((name for name in reversed(node.input) if name in direct and len(self.readers[name]) == 1), None)
        return [name for name in node.input if name != joined]

    def _placement(self, products: Sequence[onnx.NodeProto], sums: Sequence[onnx.NodeProto], rounded: set[str]) -> Placement:
        edges = {(node.name, 0): node.input[0] for node in products}
        for node in sums:
            chosen = self._rounded_inputs(node, products)
            edges |= {(node.name, index): name for index, name in enumerate(node.input) if name in chosen}
        if self.result_too:  # another reader in full would keep the kernel before it from giving eight bits
            edges |= self._all_readers(rounded)
        names = frozenset(node.name for node in products)
        wholly = frozenset(node.name for node in sums if self._is_whole(node, edges))
        return Placement(edges, names, wholly, self._groups(edges, sums), self.refused)

    def _is_whole(self, node: onnx.NodeProto, edges: Mapping[Edge, str]) -> bool:
        """Whether a sum reads only rounded numbers, and so does everyone who reads its result."""
        result = self._result(node)
        read = [(item.name, index) for item in self.readers[result] for index, name in enumerate(item.input) if name == result]
        inputs = [(node.name, index) for index in range(len(node.input))]
        return result not in self.given and bool(read) and all(edge in edges for edge in (*read, *inputs))

    def _all_readers(self, rounded: set[str]) -> dict[Edge, str]:
        return {
            (node.name, index): name
            for node in self.nodes.values()
            if node.name in self.candidates
            for index, name in enumerate(node.input)
            if name in rounded
        }

    def _groups(self, edges: Mapping[Edge, str], sums: Sequence[onnx.NodeProto]) -> tuple[tuple[str, ...], ...]:
        """Tensors that meet in a sum share a scale; a join of channels shares it with its result, which then needs no rounding
        of its own."""
        group = {name: [name] for name in edges.values()}
        for node in sums:
            met = [edges[node.name, index] for index in range(len(node.input)) if (node.name, index) in edges]
            met += [name for name in node.output if node.op_type == "Concat" and name in group]
            joined = list(dict.fromkeys(name for item in met for name in group[item]))
            group |= dict.fromkeys(joined, joined)
        return tuple(dict.fromkeys(tuple(names) for names in group.values()))


def _in_sixteens(node: onnx.NodeProto, weight: onnx.TensorProto) -> bool:
    groups = next((item.i for item in node.attribute if item.name == "group"), 1)
    channels = weight.dims[:2] if node.op_type == "Conv" else weight.dims[-2:]
    return groups == 1 and all(size % _FP8_CHANNELS == 0 for size in channels)
