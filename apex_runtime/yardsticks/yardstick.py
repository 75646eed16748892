"""A yardstick as it is measured: its predictor, sliced where the description says so, what it is, and what it costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apex_runtime.bundle.hashing import sha256_of
from apex_runtime.clock import milliseconds_since
from apex_runtime.detections import Detections
from apex_runtime.evaluation.coco_ap import ImagePredictor, PredictorInfo
from apex_runtime.precision.plan import Precision
from apex_runtime.routing.budget import Budget
from apex_runtime.yardsticks.description import Description, Input, Separate, Suppression, read_description
from apex_runtime.yardsticks.detector import Detector
from apex_runtime.yardsticks.masks import has_masks
from apex_runtime.yardsticks.slicing import SlicedPredictor

BACKEND_NAME = "ort-cpu"


@dataclass(frozen=True)
class YardstickFacts:
    """What a table of results must say of a yardstick.

    ``model_sha256`` and ``description_sha256`` are of the two files, ``size`` is height and width of the input, ``kinds`` are the
    kinds of overlap that can be measured, ``resize`` and ``postprocessing`` say in words what is done around the graph.
    """

    title: str
    model: str
    model_sha256: str
    description_sha256: str
    size: tuple[int, int]
    precision: Precision
    kinds: tuple[str, ...]
    resize: str
    postprocessing: str
    backend: str = BACKEND_NAME


class Yardstick:
    """An ``ImagePredictor`` that keeps the time: ``graph_milliseconds`` and ``predict_milliseconds``, one entry per image.

    The graph alone (of all windows, where it is sliced); and all of ``predict``, from pixels to detections, whose masks are made
    only when they are asked for. Images of one call have equal shares.
    """

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        """``path``: the description; ``threads`` of ONNX Runtime. Raises ConfigError, UsageError, ModelError, BackendError."""
        path = Path(path)
        description = read_description(path)
        model = path.parent / description.model
        self._detector = Detector(model, description, threads)
        sliced = description.slicing
        self._predictor: ImagePredictor = self._detector
        if sliced is not None:
            self._predictor = SlicedPredictor(self._detector, sliced.slicing())
        self.facts = _facts(path, model, self._detector)
        self.graph_milliseconds: list[float] = []
        self.predict_milliseconds: list[float] = []

    @property
    def info(self) -> PredictorInfo:
        """Classes and input."""
        return self._detector.info

    def predict(
        self,
        images: Sequence[np.ndarray],
        budget: Budget | int | float | str = 1.0,
        min_score: float = 0.001,
        max_detections: int | None = None,
    ) -> list[Detections]:
        """Detections of each image, uint8 [h,w,3] RGB, best first. Raises UsageError for a budget, ModelError, BackendError."""
        calls, started = self._detector.graph.milliseconds, time.perf_counter()
        before, images = len(calls), list(images)
        found = self._predictor.predict(images, budget, min_score, max_detections)
        if images:
            self.predict_milliseconds += [milliseconds_since(started) / len(images)] * len(images)
            self.graph_milliseconds += [sum(calls[before:]) / len(images)] * len(images)
        return found

    def windows(self, height: int, width: int) -> int:
        """How many images an image of height x width pixels is for the graph: 1, or its windows."""
        sliced = self._detector.description.slicing
        return 1 if sliced is None else len(sliced.slicing().windows(height, width))

    def graph_call(self, windows: int = 1) -> Callable[[], None]:
        """The graph alone on noise, ``windows`` times, for ``benchmark.turns.measure``; the lists of times stay as they are."""
        return self._detector.graph_call(windows)


def _facts(path: Path, model: Path, detector: Detector) -> YardstickFacts:
    description, facts = detector.description, detector.graph.facts
    return YardstickFacts(
        title=description.title,
        model=description.model,
        model_sha256=sha256_of(model),
        description_sha256=sha256_of(path),
        size=facts.size,
        precision=facts.precision,
        kinds=("bbox", "segm") if has_masks(description) else ("bbox",),
        resize=resize_in_words(description.input),
        postprocessing=postprocessing_in_words(description),
    )


def resize_in_words(wanted: Input) -> str:
    """For example "letterbox centre, pad 114, linear"."""
    how = "stretch" if wanted.resize == "stretch" else f"letterbox {wanted.align.replace('_', '-')}, pad {wanted.pad}"
    return f"{how}, {wanted.interpolation}{'' if wanted.rounded else ', not rounded'}"


def postprocessing_in_words(description: Description) -> str:
    """For example "best class, at most 30000 candidates, NMS iou 0.7 per class, masks cut to boxes"."""
    outputs = description.outputs
    words = [f"at most {description.max_candidates} candidates", _suppression_in_words(description.suppression)]
    if outputs.form != "end_to_end" and not (isinstance(outputs, Separate) and outputs.labels):
        words.insert(0, f"{outputs.pick} class")
    if has_masks(description):
        words.append("masks cut to boxes" if outputs.cut_masks else "masks not cut")
    if (sliced := description.slicing) is not None:
        options = [name for name in ("whole", "within") if getattr(sliced, name)]
        match = f"{sliced.match} {sliced.threshold:g}"
        words.append(" ".join([f"sliced side {sliced.side} overlap {sliced.overlap:g} {match}", *options]))
    return ", ".join(words)


def _suppression_in_words(wanted: Suppression | None) -> str:
    if wanted is None:
        return "no NMS"
    return f"NMS iou {wanted.iou:g} {'per class' if wanted.per_class else 'over all classes'}"
