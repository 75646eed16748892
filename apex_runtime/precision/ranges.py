"""How large the numbers in a graph become on real images: least and largest value of every float tensor, by ONNX Runtime.

The graph gets reductions behind each tensor and gives back their numbers, one image at a time, so that memory does not grow with
the number of images. Tensors whose range a histogram decides come out whole in the same pass. ReduceMin and ReduceMax of ONNX
Runtime 1.32 lose a NaN (in 176 of 183 arrays with one); a sum does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from apex_runtime.backends.reasons import REMEDIES, ReasonCode
from apex_runtime.errors import ModelError, UsageError

if TYPE_CHECKING:
    import onnx
    import onnxruntime

    from apex_runtime.model_info import ModelInfo
    from apex_runtime.precision.data import Image
    from apex_runtime.precision.histograms import Histograms

Feeds = Mapping[str, np.ndarray]
GoOn = Callable[[int, int], bool]
Method = Literal["minmax", "percentile", "entropy"]
_REDUCTIONS = {"ReduceMin": ".range.least", "ReduceMax": ".range.largest", "ReduceSum": ".range.sum"}
_LARGEST = 1e30  # the widest range that has a scale and bins in float32, with room to spare


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

    def with_zero(self) -> Range:
        """What holds zero, too: a quantiser must be able to say it."""
        return self.joined(Range(0.0, 0.0))

    def __str__(self) -> str:
        return f"{self.least:.4g} to {self.largest:.4g}"


@dataclass(frozen=True)
class Calibration:
    """What tensors were over so many images, by name: ``ranges`` from the least to the largest value, and ``quantised``, what
    eight bits should cover, found by ``method``; those contain 0."""

    ranges: Mapping[str, Range]
    images: int
    quantised: Mapping[str, Range] = field(default_factory=dict)
    method: Method = "minmax"


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


def collect_ranges(
    model: onnx.ModelProto,
    tensors: Iterable[str],
    feeds: Iterable[Feeds],
    quantised: Iterable[str] = (),
    method: Method = "minmax",
) -> Calibration:
    """The ranges of ``tensors`` and ``quantised``, float32 tensors of the graph, and of the latter by ``method`` besides.

    Raises UsageError without an image; ModelError, code ``calibration_not_finite``, when one of ``quantised`` holds a NaN, an
    infinity or a number beyond 1e30.
    """
    from apex_runtime.precision.histograms import Histograms

    chosen = list(dict.fromkeys(quantised))
    histograms = None if method == "minmax" else Histograms(method)
    watched = list(dict.fromkeys((*tensors, *chosen)))
    session = _session(model, watched, chosen if histograms else [])
    ranges: dict[str, Range] = {}
    images = 0
    for item in feeds:
        images += 1
        for name, seen in _look(session, item, watched, chosen, histograms, images).items():
            ranges[name] = ranges[name].joined(seen) if name in ranges else seen
    if not images:
        raise UsageError("There are no images to calibrate on.", "Name a folder of images with --data.")
    found = histograms.ranges() if histograms else {name: ranges[name].with_zero() for name in chosen}
    return Calibration(ranges, images, found, method)


def _look(
    session: onnxruntime.InferenceSession,
    item: Feeds,
    watched: Sequence[str],
    chosen: Sequence[str],
    histograms: Histograms | None,
    image: int,
) -> dict[str, Range]:
    """The ranges on one image. Its whole tensors go into the histograms and are given up with the end of this function."""
    values = session.run(None, item)
    numbers, whole = values[: len(_REDUCTIONS) * len(watched)], values[len(_REDUCTIONS) * len(watched) :]
    found = {
        name: Range(math.nan, math.nan) if np.isnan(total) else Range(float(least), float(largest))
        for name, least, largest, total in zip(watched, numbers[::3], numbers[1::3], numbers[2::3], strict=True)
    }
    for name in chosen:
        _check_finite(name, found[name], image)
    if histograms:
        for name, array in zip(chosen, whole, strict=True):
            histograms.add(name, array)
    return found


def _check_finite(name: str, seen: Range, image: int) -> None:
    if not seen.magnitude <= _LARGEST:
        code = ReasonCode.CALIBRATION_NOT_FINITE
        words = f"Tensor {name} is {seen} on image {image} of the calibration: it has no range for eight bits."
        raise ModelError(words, REMEDIES[code], code=code.value)


def _session(model: onnx.ModelProto, watched: Sequence[str], whole: Sequence[str]) -> onnxruntime.InferenceSession:
    """A session that gives three numbers for each of ``watched``, in their order, and then the tensors ``whole``."""
    import onnxruntime
    from onnx import ModelProto, TensorProto, helper

    from apex_runtime.backends.ort import session_options

    changed = ModelProto()
    changed.CopyFrom(model)
    del changed.graph.output[:]
    for name in watched:
        for op, end in _REDUCTIONS.items():
            changed.graph.node.append(helper.make_node(op, [name], [name + end], name=name + end, keepdims=0))
            changed.graph.output.append(helper.make_tensor_value_info(name + end, TensorProto.FLOAT, []))
    changed.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in whole)
    return onnxruntime.InferenceSession(changed.SerializeToString(), session_options(None), providers=["CPUExecutionProvider"])
