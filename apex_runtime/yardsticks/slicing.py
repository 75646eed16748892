"""Slicing, the usual way to find small things in a large image (SAHI, Akyol et al. 2022): overlapping windows of the image, each
given to a detector by itself, the answers put together by suppression of what two windows both found.

Two detections compete when they are of one class and share ``threshold`` or more of the smaller box (``ios``, intersection over
smaller) or of their union (``iou``); the higher score stays. The windows are SAHI's, and with ``within`` and ``whole`` so is the
result of its post-processing "NMS", to which it changes by itself where scores below 0.1 are asked for, as for a precision-recall
curve (then with ``iou``). Left out of SAHI: uniting what competes (GREEDYNMM, NMM), its default above that score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.detections import Detections
from apex_runtime.evaluation.coco_ap import ImagePredictor, PredictorInfo
from apex_runtime.postprocess.letterbox import Letterbox
from apex_runtime.routing.budget import Budget

Match = Literal["ios", "iou"]
Region = tuple[int, int, int, int]  # top, left, bottom, right


@dataclass(frozen=True)
class Slicing:
    """Windows of ``side`` x ``side`` pixels of the image, a share ``overlap`` of which the next window sees again.

    ``whole``: the whole image as one window more. ``within``: what one window found by itself competes too; without it the
    network's own answer within a window is left as it is. ``size`` (height, width): ``side`` is in pixels of a letterbox of that
    size, at ``zoom`` times its scale; so that at zoom 1 an object is as large as it is for an engine of that size.
    """

    side: int
    overlap: float = 0.2
    match: Match = "ios"
    threshold: float = 0.5
    whole: bool = False
    within: bool = False
    size: tuple[int, int] | None = None
    zoom: float = 1.0

    def windows(self, height: int, width: int) -> list[Region]:
        """Those of an image of height x width pixels, row by row; the whole image, where it is one more, comes last."""
        scale = 1.0 if self.size is None else self.zoom * Letterbox(height, width, *self.size).scale
        side = max(1, round(self.side / scale))
        rows, cols = (self._spans(length, side) for length in (height, width))
        found = [(top, left, bottom, right) for top, bottom in rows for left, right in cols]
        return [*found, (0, 0, height, width)] if self.whole and len(found) > 1 else found

    def _spans(self, length: int, side: int) -> list[tuple[int, int]]:
        """Windows along one axis; the last one is moved back so that it ends with the image."""
        if side >= length:
            return [(0, length)]
        step = max(1, side - int(self.overlap * side))
        return [(start, start + side) for start in [*range(0, length - side, step), length - side]]


class SlicedPredictor:
    """An ``ImagePredictor`` around another one: ours with its budget, or a yardstick's."""

    def __init__(self, predictor: ImagePredictor, slicing: Slicing) -> None:
        self.slicing = slicing
        self._predictor = predictor

    @property
    def info(self) -> PredictorInfo:
        """That of the predictor of the windows."""
        return self._predictor.info

    def predict(
        self,
        images: Sequence[np.ndarray],
        budget: Budget | int | float | str = 1.0,
        min_score: float = 0.001,
        max_detections: int | None = None,
    ) -> list[Detections]:
        """Detections of each image, uint8 [h,w,3] RGB, best first; every window has the budget. Raises as the predictor does."""
        return [self._sliced(image, budget, min_score, max_detections) for image in images]

    def _sliced(
        self, image: np.ndarray, budget: Budget | int | float | str, min_score: float, max_detections: int | None
    ) -> Detections:
        windows = self.slicing.windows(*image.shape[:2])
        crops = [image[top:bottom, left:right] for top, left, bottom, right in windows]
        found = self._predictor.predict(crops, budget, min_score=min_score)
        height, width, wanted = image.shape[0], image.shape[1], self.info.input
        whole = Letterbox(height, width, wanted.height, wanted.width)
        return joined(found, [(left, top) for top, left, _, _ in windows], whole, self.slicing, max_detections)


def joined(
    found: Sequence[Detections],
    corners: Sequence[tuple[int, int]],
    letterbox: Letterbox,
    slicing: Slicing,
    max_detections: int | None = None,
) -> Detections:
    """The detections of windows with their upper left ``corners`` (x, y) as those of the whole image, duplicates left out."""
    boxes = np.concatenate([each.boxes + np.tile(corner, 2) for each, corner in zip(found, corners, strict=True)])
    scores, labels, categories = (
        np.concatenate([getattr(each, name) for each in found]) for name in ("scores", "labels", "category_ids")
    )
    sizes = [len(each) for each in found]
    window, place = np.repeat(np.arange(len(found)), sizes), np.concatenate([np.arange(size) for size in sizes])
    kept = suppressed(boxes, scores, labels, window, slicing)[:max_detections]
    nothing = np.zeros(0, np.int64)
    return Detections(
        boxes[kept].astype(np.float32),
        scores[kept],
        labels[kept],
        categories[kept],
        [_moved(found[window[index]].masks[place[index]], corners[window[index]]) for index in kept],
        tile_ids=nothing,
        tile_levels=nothing,
        n_content=0,
        letterbox=letterbox,
    )


def _moved(mask: RoiMask, corner: tuple[int, int]) -> RoiMask:
    return RoiMask(mask.x + corner[0], mask.y + corner[1], mask.bits)


def suppressed(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, window: np.ndarray, slicing: Slicing) -> np.ndarray:
    """The places, best first, of the boxes [n,4] that no better one of the same label, and another window, covers."""
    order = np.argsort(-scores, kind="stable")
    boxes, labels, window = boxes[order], labels[order], window[order]
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    alive = np.ones(len(order), bool)
    for place in range(len(order)):
        if alive[place]:
            rest = slice(place + 1, None)
            size = np.minimum(boxes[rest, 2:], boxes[place, 2:]) - np.maximum(boxes[rest, :2], boxes[place, :2])
            common = np.prod(np.maximum(size, 0), axis=1)
            of = np.minimum(areas[rest], areas[place])
            if slicing.match == "iou":
                of = areas[rest] + areas[place] - common
            rivals = labels[rest] == labels[place]
            if not slicing.within:
                rivals &= window[rest] != window[place]
            alive[rest] &= ~(rivals & (common >= slicing.threshold * of))
    return order[alive]
