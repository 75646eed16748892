"""The anchor: a fixed piece of work that is timed beside the engine, so that a busy machine slows both alike.

It is what engines of this family are made of, in the same sizes: convolutions over one small map and over a batch of
tiles, pointwise and depthwise ones between them, gathered tiles, a shuffle, and a part that one thread does alone
(small nodes one after the other, a TopK). Work that needs more of the caches than the engine, or more of a second core,
is slowed more than the engine is. Another graph makes every stored ratio meaningless; its SHA-256 is kept with them.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from apex_runtime.benchmark.turns import Subject

if TYPE_CHECKING:
    import onnx

SIDE = 512  # of its square input, pixels
_TILES = 16
_SMALL_NODES = 150
_CANDIDATES = 20_000
_SEED = 0


@cache
def anchor_model() -> bytes:
    """The ONNX file: float32 [1,3,512,512] to two outputs. The same bytes in every process."""
    from onnx import helper

    graph = _Graph()
    wide = graph.maps(graph.conv("x", 3, 16, 3, stride=4))
    model = helper.make_model(graph.finish(wide, graph.tiles()), opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString(deterministic=True))


def anchor_sha256() -> str:
    """Of the file."""
    return hashlib.sha256(anchor_model()).hexdigest()


def open_anchor(threads: int | None) -> Subject:
    """One call of the anchor with so many threads, in ONNX Runtime on the CPU. Raises BackendError."""
    from apex_runtime.backends.ort import open_session, session_options

    session = open_session(Path("anchor.onnx"), anchor_model(), session_options(threads), ["CPUExecutionProvider"])
    feeds = {"x": np.random.default_rng(_SEED).standard_normal((1, 3, SIDE, SIDE), np.float32)}
    return lambda: session.run(None, feeds)


class _Graph:
    """Nodes and weights as they are added; each gives the name of its output."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(_SEED)
        self._nodes: list[onnx.NodeProto] = []
        self._stored: list[onnx.TensorProto] = []

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Add a node; the name of its first output."""
        from onnx import helper

        names = [f"v{len(self._nodes)}_{place}" for place in range(outputs)]
        self._nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names[0]

    def constant(self, value: np.ndarray) -> str:
        """Store an array; its name."""
        from onnx import numpy_helper

        self._stored.append(numpy_helper.from_array(value, f"w{len(self._stored)}"))
        return str(self._stored[-1].name)

    def whole(self, *numbers: int) -> str:
        """Store whole numbers."""
        return self.constant(np.array(numbers, np.int64))

    def conv(self, x: str, channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> str:
        """A convolution and its Relu; weights that keep the size of what they get."""
        shape = (out, channels // groups, kernel, kernel)
        weight = self._random.standard_normal(shape, np.float32) * np.float32((2 / np.prod(shape[1:])) ** 0.5)
        where: dict[str, Any] = {"strides": [stride, stride], "pads": [kernel // 2] * 4, "group": groups}
        return self.node("Relu", self.node("Conv", x, self.constant(weight), **where))

    def row(self, x: str, channels: int, count: int, kernel: int = 3) -> str:
        """So many convolutions, each added to what it gets."""
        for _number in range(count):
            x = self.node("Add", x, self.conv(x, channels, channels, kernel))
        return x

    def maps(self, x: str) -> str:
        """What is done once per image, on 16 channels of 128 x 128: maps of 64 to 16, and a shuffle of the first."""
        x = self.row(self.conv(x, 16, 32, 3, stride=2), 32, 2)
        fine = self.conv(x, 32, 64, 1)
        for _number in range(4):
            fine = self.conv(self.conv(fine, 64, 64, 5, groups=64), 64, 64, 1)
        coarse = self.row(self.conv(x, 32, 64, 3, stride=2), 64, 2)
        coarse = self.row(self.conv(coarse, 64, 128, 3, stride=2), 128, 2)
        fine = self.node("Add", self.conv(fine, 64, 128, 1), self.node("ReduceMean", coarse, self.whole(2, 3)))
        return self.node("DepthToSpace", fine, blocksize=2)

    def tiles(self) -> str:
        """What is done per tile: 16 of 80 x 80 pixels, cut from the image."""
        order = self._random.permutation(SIDE * SIDE * 3 // 8)[: _TILES * 3 * 80 * 10].astype(np.int64)
        rows = self.node("Reshape", "x", self.whole(-1, 8))
        x = self.node("Reshape", self.node("Gather", rows, self.constant(order)), self.whole(_TILES, 3, 80, 80))
        x = self.row(self.conv(self.conv(x, 3, 16, 3, stride=2), 16, 48, 3, stride=2), 48, 4)
        return self.row(self.conv(x, 48, 96, 3, stride=2), 96, 4)

    def alone(self) -> tuple[str, str]:
        """What one thread does: a row of small nodes, and the largest of many numbers."""
        small = self.constant(self._random.standard_normal(64, np.float32))
        x = self.node("ReduceMean", "x", self.whole(1, 2, 3))
        for number in range(_SMALL_NODES):
            x = self.node(("Add", "Tanh", "Mul")[number % 3], *((x,) if number % 3 == 1 else (x, small)))
        many = self.node("Reshape", "x", self.whole(1, -1))
        first = self.node("Slice", many, self.whole(0), self.whole(_CANDIDATES), self.whole(1))
        return x, self.node("TopK", first, self.whole(500), outputs=2)

    def finish(self, *ends: str) -> onnx.GraphProto:
        """The graph with the part that one thread does."""
        from onnx import TensorProto, helper

        image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
        small, most = self.alone()
        ranks = dict.fromkeys((*ends, small), 4) | {most: 2}
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank) for name, rank in ranks.items()]
        return helper.make_graph(self._nodes, "anchor", [image], outputs, self._stored)
