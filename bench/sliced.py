"""Slicing, the usual way to find small things in a large image (SAHI, Akyol et al. 2022): overlapping windows of the image, each
run through the dense network by itself, the answers put together by suppression of what two windows both found.

Two detections compete when they are of one class, come from different windows and share more than ``overlap`` of the smaller box
(SAHI's measure, "intersection over smaller"); the higher score stays. Within a window the network's own answer is left as it is,
for it is made without NMS everywhere else too. Left out of SAHI: its extra pass over the whole image, and uniting what competes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apex_runtime.backends.session import Session
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.detections import Detections
from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.postprocess.letterbox import Letterbox

SHARED = 0.5  # of the smaller box, as SAHI's default


@dataclass(frozen=True)
class Slicing:
    """Windows of ``side`` x ``side`` input pixels, a share ``overlap`` of which the next window sees again.

    ``zoom`` is their scale over that of a letterbox of ``size`` (height, width): at 1 an object is as large as for the engine.
    """

    size: tuple[int, int]
    side: int
    overlap: float = 0.2
    zoom: float = 1.0

    def windows(self, height: int, width: int) -> list[tuple[int, int, int, int]]:
        """(top, left, bottom, right) in pixels of an image of height x width."""
        side = max(1, round(self.side / (self.zoom * Letterbox(height, width, *self.size).scale)))
        spans = [self._spans(length, side) for length in (height, width)]
        return [(top, left, bottom, right) for top, bottom in spans[0] for left, right in spans[1]]

    def _spans(self, length: int, side: int) -> list[tuple[int, int]]:
        """Windows along one axis; the last one is moved back so that it ends with the image."""
        if side >= length:
            return [(0, length)]
        step = max(1, round(side * (1 - self.overlap)))
        return [(start, start + side) for start in [*range(0, length - side, step), length - side]]


class SlicedPredictor:
    """Detects window by window with a dense session of one window's size."""

    def __init__(self, session: Session, slicing: Slicing) -> None:
        self.predictor = Predictor(session)
        self.slicing = slicing

    def detect(self, image: np.ndarray, min_score: float, max_detections: int) -> Detections:
        """The detections of one image, uint8 [h,w,3], best first."""
        windows = self.slicing.windows(*image.shape[:2])
        crops = [image[top:bottom, left:right] for top, left, bottom, right in windows]
        found = self.predictor.predict(crops, 1.0, min_score=min_score)
        corners = [(left, top) for top, left, _, _ in windows]
        return joined(found, corners, Letterbox(*image.shape[:2], *self.slicing.size), max_detections)


def joined(
    found: list[Detections], corners: list[tuple[int, int]], letterbox: Letterbox, max_detections: int, shared: float = SHARED
) -> Detections:
    """The detections of windows with their upper left ``corners`` (x, y) as those of the whole image, duplicates left out."""
    boxes = np.concatenate([each.boxes + np.tile(corner, 2) for each, corner in zip(found, corners, strict=True)])
    scores, labels, categories = (
        np.concatenate([getattr(each, name) for each in found]) for name in ("scores", "labels", "category_ids")
    )
    masks = [RoiMask(m.x + x, m.y + y, m.bits) for each, (x, y) in zip(found, corners, strict=True) for m in each.masks]
    window = np.repeat(np.arange(len(found)), [len(each) for each in found])
    kept = suppressed(boxes, scores, labels, window, shared)[:max_detections]
    nothing = np.zeros(0, np.int64)
    return Detections(
        boxes[kept].astype(np.float32),
        scores[kept],
        labels[kept],
        categories[kept],
        [masks[place] for place in kept],
        tile_ids=nothing,
        tile_levels=nothing,
        n_content=0,
        letterbox=letterbox,
    )


def suppressed(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, window: np.ndarray, shared: float) -> np.ndarray:
    """The places, best first, of the boxes [n,4] that no better one of the same label and another window covers."""
    order = np.argsort(-scores, kind="stable")
    boxes, labels, window = boxes[order], labels[order], window[order]
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    alive = np.ones(len(order), bool)
    for place in range(len(order)):
        if alive[place]:
            rest = slice(place + 1, None)
            size = np.minimum(boxes[rest, 2:], boxes[place, 2:]) - np.maximum(boxes[rest, :2], boxes[place, :2])
            common = np.prod(np.maximum(size, 0), axis=1)
            rivals = (labels[rest] == labels[place]) & (window[rest] != window[place])
            alive[rest] &= ~(rivals & (common > shared * np.minimum(areas[rest], areas[place])))
    return order[alive]
