"""Images in, detections out, whatever executes the graph: the three steps that every command shares.

``prepare`` (letterbox, budget to K) -> ``run`` (one graph call for images of equal K) -> ``finish`` (boxes and masks).

Legend: N tiles of all levels, K tiles looked at, H x W input pixels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from apex_runtime.backends.session import Session, Tiles
from apex_runtime.detections import Detections
from apex_runtime.errors import ImageError, UsageError
from apex_runtime.model_info import ModelInfo
from apex_runtime.postprocess.detections import detections_of_image
from apex_runtime.postprocess.letterbox import Letterbox, letterbox_image
from apex_runtime.routing.budget import Budget, parse_budget
from apex_runtime.routing.grid import content_tiles, padding_bonus
from apex_runtime.routing.split import plan_tiles

MAX_BATCH = 8  # images of one graph call of ``predict``

# Masks of one step of ``iter_finish`` cover at most this many pixels, however large their boxes: 256 MB.
_MASK_PIXELS = 1 << 28
_PER_CANDIDATE = ("boxes", "scores", "labels", "mask_coefficients", "candidate_ids")


@dataclass(frozen=True, eq=False)
class Prepared:
    """One image ready for the graph: uint8 [H,W,3], float32 [N], and K for its budget."""

    image_HW3: np.ndarray
    bonus_N: np.ndarray
    letterbox: Letterbox
    n_content: int
    tiles: Tiles


@dataclass(frozen=True)
class Filter:
    """Which detections are kept: score at least ``min_score``, one of ``labels`` (None = all), at most ``max_detections``."""

    min_score: float = 0.001
    max_detections: int | None = None
    labels: frozenset[int] | None = None


def filter_of(info: ModelInfo, min_score: float, max_detections: int | None, classes: Sequence[str] | None) -> Filter:
    """The checked filter; ``classes`` are names of this model. Raises UsageError."""
    if not 0 <= min_score <= 1:
        raise UsageError(f"--min-score {min_score}: a score is between 0 and 1.", "The default is 0.001.")
    if max_detections is not None and max_detections < 1:
        raise UsageError(f"--max-detections {max_detections}: expected at least 1.", "Leave it out for all.")
    return Filter(min_score, max_detections, _labels(info, classes))


def _labels(info: ModelInfo, classes: Sequence[str] | None) -> frozenset[int] | None:
    if not classes:
        return None
    names = [category.name for category in info.classes]
    unknown = [name for name in classes if name not in names]
    if unknown:
        raise UsageError(f"--classes {','.join(unknown)}: this engine does not know it.", f"It knows: {', '.join(names)}.")
    return frozenset(index for index, name in enumerate(names) if name in classes)


def check_image(image: np.ndarray) -> None:
    """Raises ImageError unless it is uint8 [h,w,3]."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ImageError(
            f"image: {image.dtype} {image.shape}, expected uint8 [height, width, 3] in RGB order.",
            "Read files with apex_runtime.data.image.decode_image.",
        )


class Predictor:
    """Detects with a session. ``predict`` for a list of images; ``prepare``, ``run`` and ``finish`` for pipelines."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.info = session.info

    def predict(
        self,
        images: Sequence[np.ndarray],
        budget: Budget | int | float | str = 1.0,
        min_score: float = 0.001,
        max_detections: int | None = None,
        classes: Sequence[str] | None = None,
    ) -> list[Detections]:
        """Detections of each image (uint8 [h,w,3] RGB), in their order. Raises UsageError, ImageError, BackendError."""
        wanted = self.filter(min_score, max_detections, classes)
        prepared = [self.prepare(image, parse_budget(budget)) for image in images]
        results = {index: self.finish(outputs, prepared[index], wanted) for index, outputs in self.run_grouped(prepared)}
        return [results[index] for index in range(len(prepared))]

    def run_grouped(self, prepared: Sequence[Prepared]) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """The place and the graph outputs of each image; those of equal K share a call and come together. Raises BackendError."""
        groups: dict[Tiles, list[int]] = defaultdict(list)
        for index, item in enumerate(prepared):
            groups[item.tiles].append(index)
        for indices in groups.values():
            for start in range(0, len(indices), MAX_BATCH):
                part = indices[start : start + MAX_BATCH]
                yield from zip(part, self.run([prepared[index] for index in part]), strict=True)

    def filter(self, min_score: float, max_detections: int | None, classes: Sequence[str] | None) -> Filter:
        """The checked filter; ``classes`` are names of this model. Raises UsageError."""
        return filter_of(self.info, min_score, max_detections, classes)

    def prepare(self, image: np.ndarray, budget: Budget) -> Prepared:
        """Letterbox one image, uint8 [h,w,3], and turn the budget into its K. Raises ImageError, UsageError."""
        check_image(image)
        canvas, letterbox = letterbox_image(image, self.info.input.height, self.info.input.width)
        content_N = content_tiles(letterbox, self.info.tiles)
        n_content = int(content_N.sum())
        tiles = plan_tiles(budget, content_N, self.info)
        return Prepared(canvas, padding_bonus(content_N), letterbox, n_content, tiles)

    def run(self, batch: Sequence[Prepared]) -> list[dict[str, np.ndarray]]:
        """The graph outputs of each image, without the batch axis; all must have the same K. Raises BackendError."""
        if len({item.tiles for item in batch}) != 1:
            raise ValueError("a batch has one K")
        images = np.stack([item.image_HW3 for item in batch])
        outputs = self.session.run(images, batch[0].tiles, np.stack([item.bonus_N for item in batch]))
        return [{name: array[index] for name, array in outputs.items()} for index in range(len(batch))]

    def finish(self, outputs: dict[str, np.ndarray], prepared: Prepared, wanted: Filter) -> Detections:
        """The detections of one image, best first. Raises BackendError when the outputs are not finite."""
        return detections_of_image(
            outputs,
            prepared.letterbox,
            self.info,
            min_score=wanted.min_score,
            max_detections=wanted.max_detections,
            labels=wanted.labels,
        )

    def iter_finish(self, outputs: dict[str, np.ndarray], prepared: Prepared, wanted: Filter) -> Iterator[Detections]:
        """``finish`` in pieces, best first, at least one: 500 masks as large as a huge image do not fit in memory."""
        area = prepared.letterbox.source_height * prepared.letterbox.source_width
        step = max(1, _MASK_PIXELS // area)
        left = wanted.max_detections
        for start in range(0, len(outputs["scores"]), step):
            piece = {name: array[start : start + step] if name in _PER_CANDIDATE else array for name, array in outputs.items()}
            found = self.finish(piece, prepared, replace(wanted, max_detections=left))
            yield found
            if left is not None:
                left -= len(found)
            if left == 0 or outputs["scores"][start : start + step].min() < wanted.min_score:
                return
