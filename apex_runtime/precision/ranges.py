"""How large the numbers in a graph become on real images: least and largest value of every float tensor, by ONNX Runtime.

The graph gets a ReduceMin and a ReduceMax behind each tensor and gives back those numbers alone, one image at a time, so that
memory does not grow with the number of images or of tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from apex_runtime.errors import UsageError

if TYPE_CHECKING:
    import onnx

    from apex_runtime.model_info import ModelInfo
    from apex_runtime.precision.data import Image

Feeds = Mapping[str, np.ndarray]
GoOn = Callable[[int, int], bool]
_LEAST, _LARGEST = ".range.least", ".range.largest"


@dataclass(frozen=True)
class Range:
    """Least and largest value that was seen; NaN in one of them where a NaN was."""

    least: float
    largest: float

    @property
    def magnitude(self) -> float:
        """The largest absolute value; NaN stays NaN."""
        return float(np.max(np.abs([self.least, self.largest])))

    def joined(self, other: Range) -> Range:
        """What holds both."""
        return Range(float(np.minimum(self.least, other.least)), float(np.maximum(self.largest, other.largest)))

    def __str__(self) -> str:
        return f"{self.least:.4g} to {self.largest:.4g}"


@dataclass(frozen=True)
class Calibration:
    """The ranges of tensors by name, over so many images."""

    ranges: Mapping[str, Range]
    images: int


def calibration_feeds(images: Sequence[Image], info: ModelInfo, go_on: GoOn = lambda _done, _total: True) -> Iterator[Feeds]:
    """What the graph is fed for every image, one by one: all tiles that have content are looked at. ``go_on(done, total)`` is
    asked before each.

    Raises ImageError for a file that cannot be decoded, KeyboardInterrupt when ``go_on`` says no.
    """
    from apex_runtime.backends.ort import graph_feeds
    from apex_runtime.parity.cases import case_of
    from apex_runtime.routing.budget import parse_budget
    from apex_runtime.routing.grid import padding_bonus
    from apex_runtime.routing.split import plan_tiles

    everything = parse_budget("1.0")
    for done, image in enumerate(images):
        if not go_on(done, len(images)):
            raise KeyboardInterrupt
        case = case_of(image.read(), image.name, info)
        tiles = plan_tiles(everything, case.content_N, info)
        yield graph_feeds(info, case.pixels[None], tiles, padding_bonus(case.content_N)[None])


def collect_ranges(model: onnx.ModelProto, tensors: Sequence[str], feeds: Iterable[Feeds]) -> Calibration:
    """The range of each of ``tensors``, float32 tensors of the graph. Raises UsageError without an image."""
    import onnxruntime

    from apex_runtime.backends.ort import session_options

    watched = _watched(model, tensors).SerializeToString()
    session = onnxruntime.InferenceSession(watched, session_options(None), providers=["CPUExecutionProvider"])
    names = [name + end for name in tensors for end in (_LEAST, _LARGEST)]
    ranges: dict[str, Range] = {}
    images = 0
    for item in feeds:
        values = iter(float(value) for value in session.run(names, item))
        found = {name: Range(next(values), next(values)) for name in tensors}
        ranges = {name: ranges[name].joined(seen) if name in ranges else seen for name, seen in found.items()}
        images += 1
    if not images:
        raise UsageError("There are no images to calibrate on.", "Name a folder of images with --data.")
    return Calibration(ranges, images)


def _watched(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    from onnx import ModelProto, TensorProto, helper

    changed = ModelProto()
    changed.CopyFrom(model)
    del changed.graph.output[:]
    for name in tensors:
        for op, end in (("ReduceMin", _LEAST), ("ReduceMax", _LARGEST)):
            changed.graph.node.append(helper.make_node(op, [name], [name + end], name=name + end, keepdims=0))
            changed.graph.output.append(helper.make_tensor_value_info(name + end, TensorProto.FLOAT, []))
    return changed
