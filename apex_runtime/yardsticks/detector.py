"""A detector of another project as an ``ImagePredictor``: images in, detections in their own pixels out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apex_runtime.detections import Detections
from apex_runtime.errors import UsageError
from apex_runtime.model_info import Category, InputInfo
from apex_runtime.pipeline.predictor import check_image
from apex_runtime.routing.budget import Budget, parse_budget
from apex_runtime.yardsticks.decode import candidates_of, places_of
from apex_runtime.yardsticks.description import Description
from apex_runtime.yardsticks.graph import Graph
from apex_runtime.yardsticks.masks import masks_of
from apex_runtime.yardsticks.outputs import OutputCheck
from apex_runtime.yardsticks.placement import Placement, place_image
from apex_runtime.yardsticks.suppression import suppress

MAX_BATCH = 8  # images of one graph call, where the graph takes several


@dataclass(frozen=True)
class DetectorInfo:
    """The classes of a yardstick, ids from 1 in the order of their columns, and the size of its input."""

    classes: tuple[Category, ...]
    input: InputInfo


class Detector:
    """Detects with a graph that a description explains."""

    def __init__(self, path: Path, description: Description, threads: int | None = None) -> None:
        """``path``: the ONNX file. Raises UsageError, ModelError, BackendError."""
        self.description = description
        self.graph = Graph(path, description.input, threads)
        self._check = OutputCheck(path, description)
        self._check.check(self.graph.facts.outputs)
        height, width = self.graph.facts.size
        classes = tuple(Category(id=number, name=name) for number, name in enumerate(description.names, 1))
        self.info = DetectorInfo(classes, InputInfo(height=height, width=width))

    def predict(
        self,
        images: Sequence[np.ndarray],
        budget: Budget | int | float | str = 1.0,
        min_score: float = 0.001,
        max_detections: int | None = None,
    ) -> list[Detections]:
        """Detections of each image, uint8 [h,w,3] RGB. The only ``budget`` is all.

        Raises UsageError, ImageError, ModelError, BackendError.
        """
        refuse_budget(budget, self.description.title)
        step = MAX_BATCH if self.graph.facts.batched else 1
        return [
            self._finish(outputs, placement, min_score, max_detections)
            for start in range(0, len(images), step)
            for outputs, placement in self._run(images[start : start + step])
        ]

    def graph_call(self, images: int = 1) -> Callable[[], None]:
        """The graph alone on so many images of noise that are ready in memory, as ``predict`` would call it."""
        facts, wanted = self.graph.facts, self.description.input
        noise = np.random.default_rng(0).integers(0, 256, (*facts.size, 3), dtype=np.uint8)
        step = MAX_BATCH if facts.batched else 1
        pixels, _ = place_image(noise, wanted, *facts.size, facts.dtype)
        batches = [np.stack([pixels] * min(step, images - start)) for start in range(0, images, step)]

        def call() -> None:
            for batch in batches:
                self.graph.call(batch, self._check.names)

        return call

    def _run(self, images: Sequence[np.ndarray]) -> Iterator[tuple[dict[str, np.ndarray], Placement]]:
        """The outputs of each image of one call, without their batch axis."""
        facts = self.graph.facts
        for image in images:
            check_image(image)
        placed = [place_image(image, self.description.input, *facts.size, facts.dtype) for image in images]
        outputs = self.graph.run(np.stack([pixels for pixels, _ in placed]), self._check.names)
        self._check.check({name: array.shape for name, array in outputs.items()})
        for index, (_pixels, placement) in enumerate(placed):
            yield {name: array[index] for name, array in outputs.items()}, placement

    def _finish(
        self, outputs: dict[str, np.ndarray], placement: Placement, min_score: float, max_detections: int | None
    ) -> Detections:
        """The detections of one image, best first; boxes are cut to it, and those without area in it are left out."""
        description = self.description
        places = places_of(outputs, description)
        found = candidates_of(places, description, self.graph.facts.size, min_score)
        if description.suppression is not None:
            found = suppress(found, description.suppression)
        boxes = placement.boxes_to_source(found.boxes)
        index = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))[:max_detections]
        kept, nothing = found.at(index), np.zeros(0, np.int64)
        return Detections(
            boxes=boxes[index],
            scores=kept.scores,
            labels=kept.labels,
            category_ids=kept.labels + 1,
            masks=masks_of(kept, places, outputs, description, placement),
            tile_ids=nothing,
            tile_levels=nothing,
            n_content=0,
            letterbox=placement,
        )


def refuse_budget(budget: Budget | int | float | str, title: str) -> None:
    """Raises UsageError unless the budget is all: a yardstick looks at everything."""
    asked = parse_budget(budget)
    if (asked.kind, asked.value) != ("share", 1.0):
        raise UsageError(f"budget {asked.asked}: {title} is a yardstick, which has no budget.", "Give 1.0, or leave it out.")
