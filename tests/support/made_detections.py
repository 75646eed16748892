"""Detections made by hand, for what compares or shows them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.detections import Detections
from apex_runtime.postprocess.letterbox import Letterbox

SIDE = 100


def made(rows: Sequence[tuple[float, Sequence[float], int]], inverted: bool = False) -> Detections:
    """Rows of (score, box xyxy, label), best first; each mask is the left half of its box, or the right one."""
    boxes = np.array([box for _, box, _ in rows], np.float32).reshape(-1, 4)
    labels = np.array([label for *_, label in rows], np.int64)
    nothing = np.zeros(0, np.int64)
    return Detections(
        boxes=boxes,
        scores=np.array([score for score, *_ in rows], np.float32),
        labels=labels,
        category_ids=labels + 1,
        masks=[_half(box, inverted) for box in boxes],
        tile_ids=nothing,
        tile_levels=nothing,
        n_content=0,
        letterbox=Letterbox(SIDE, SIDE, SIDE, SIDE),
    )


def _half(box: np.ndarray, right: bool) -> RoiMask:
    x1, y1, x2, y2 = (round(value) for value in box.tolist())
    bits = np.zeros((max(y2 - y1, 1), max(x2 - x1, 1)), np.uint8)
    middle = bits.shape[1] // 2
    bits[:, slice(middle, None) if right else slice(middle)] = 1
    return RoiMask(x1, y1, bits)
