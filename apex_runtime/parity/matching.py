"""Which detection of one side is which of the other, as a user sees it: one class, and boxes that overlap. No anchors here."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.detections import Detections


class Pair(NamedTuple):
    """A row of the reference, one of the candidate, and the IoU of their boxes."""

    reference: int
    candidate: int
    box_iou: float


def match_detections(reference: Detections, candidate: Detections, min_iou: float) -> list[Pair]:
    """Pairs in which each row comes once at most.

    Greedy, in the order of the reference's score: each takes of what is left of its class the box that overlaps it most, by an
    IoU of ``min_iou``, above 0, or more. Of equal ones the first.
    """
    free_nm = box_iou(reference.boxes, candidate.boxes)
    free_nm[reference.labels[:, None] != candidate.labels[None]] = 0
    pairs = []
    for row in np.argsort(-reference.scores, kind="stable").tolist() if len(candidate) else ():
        best = int(free_nm[row].argmax())
        if free_nm[row, best] >= min_iou:
            pairs.append(Pair(row, best, float(free_nm[row, best])))
            free_nm[:, best] = 0
    return pairs


def box_iou(boxes_n4: np.ndarray, boxes_m4: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair of boxes xyxy, float64 [n,m]; 0 where neither has an area."""
    first_n14, second_1m4 = boxes_n4[:, None].astype(np.float64), boxes_m4[None].astype(np.float64)
    sides = np.minimum(first_n14[..., 2:], second_1m4[..., 2:]) - np.maximum(first_n14[..., :2], second_1m4[..., :2])
    shared_nm = np.maximum(sides, 0).prod(2)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(2) for boxes in (first_n14, second_1m4)]
    return shared_nm / np.maximum(areas[0] + areas[1] - shared_nm, 1e-9)


def mask_iou(first: RoiMask, second: RoiMask) -> float:
    """Intersection over union of two masks of one image; 1 where both are empty."""
    (height, width), (other_height, other_width) = first.bits.shape, second.bits.shape
    top, left = max(first.y, second.y), max(first.x, second.x)
    bottom, right = min(first.y + height, second.y + other_height), min(first.x + width, second.x + other_width)
    shared = 0
    if bottom > top and right > left:
        windows = [each.bits[top - each.y : bottom - each.y, left - each.x : right - each.x] for each in (first, second)]
        shared = int(np.count_nonzero(windows[0] & windows[1]))
    union = first.area + second.area - shared
    return shared / union if union else 1.0
