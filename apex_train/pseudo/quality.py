"""What speaks for a detection beside its score: a mask that holds still, fits its box, and is found again in other views.

Legend: n detections of an image, m those of a view of it, P prototypes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.detections import Detections
from apex_runtime.pipeline.predictor import Filter, Predictor, Prepared
from apex_runtime.postprocess.rle import rois_to_rles

# By so much the logit at which a pixel belongs to a mask is moved up and down, as for the masks of SAM (Kirillov et al. 2023).
STABILITY_OFFSET = 1.0


@dataclass(frozen=True, eq=False)
class Quality:
    """Of n detections, float64 [n] in 0..1 each.

    ``stability`` is the area of the mask at a stricter threshold over that at a looser one, ``agreement`` the IoU of the box and
    the box around the mask, ``consistency`` the mean over the views of the best mask IoU with a detection of the same class.
    """

    stability_n: np.ndarray
    agreement_n: np.ndarray
    consistency_n: np.ndarray


def stability(predictor: Predictor, outputs: Mapping[str, np.ndarray], prepared: Prepared, wanted: Filter) -> np.ndarray:
    """float64 [n]: how little each mask changes with its threshold; 0 for a mask that even the looser one leaves empty."""
    strict, loose = (predictor.finish(_moved(outputs, by), prepared, wanted) for by in (-STABILITY_OFFSET, STABILITY_OFFSET))
    areas = [(small.area, large.area) for small, large in zip(strict.masks, loose.masks, strict=True)]
    return np.array([small / large if large else 0.0 for small, large in areas], np.float64)


def _moved(outputs: Mapping[str, np.ndarray], by: float) -> dict[str, np.ndarray]:
    """The outputs with every mask logit moved: one more prototype that is 1 everywhere, with ``by`` as its coefficient."""
    coefficients_MP, prototypes_Phw = outputs["mask_coefficients"], outputs["mask_prototypes"]
    constant_M1 = np.full((len(coefficients_MP), 1), by, coefficients_MP.dtype)
    ones_1hw = np.ones((1, *prototypes_Phw.shape[1:]), prototypes_Phw.dtype)
    return {
        **outputs,
        "mask_coefficients": np.concatenate([coefficients_MP, constant_M1], axis=1),
        "mask_prototypes": np.concatenate([prototypes_Phw, ones_1hw]),
    }


def agreement(found: Detections) -> np.ndarray:
    """float64 [n]: IoU of each box with the box around its mask; 0 for an empty mask."""
    return np.array([_box_iou(box, mask) for box, mask in zip(found.boxes.tolist(), found.masks, strict=True)], np.float64)


def _box_iou(box: Sequence[float], mask: RoiMask) -> float:
    rows, cols = (np.flatnonzero(mask.bits.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return 0.0
    x1, y1, x2, y2 = box
    left, top, right, bottom = mask.x + cols[0], mask.y + rows[0], mask.x + cols[-1] + 1, mask.y + rows[-1] + 1
    shared = max(0.0, min(x2, right) - max(x1, left)) * max(0.0, min(y2, bottom) - max(y1, top))
    return float(shared / ((x2 - x1) * (y2 - y1) + (right - left) * (bottom - top) - shared))


def consistency(found: Detections, views: Sequence[Detections]) -> np.ndarray:
    """float64 [n]: the mean over the views of each detection's best mask IoU with one of its class there; 1 without views."""
    if not views:
        return np.ones(len(found))
    return np.mean([best_overlap(found, view) for view in views], axis=0)


def best_overlap(found: Detections, others: Detections) -> np.ndarray:
    """float64 [n]: the best IoU of each mask with a mask of the same class among ``others``, in pixels of the same image."""
    if not len(found) or not len(others):
        return np.zeros(len(found))
    iou_nm = mask_iou(found.masks, others.masks, found.letterbox.source_height, found.letterbox.source_width)
    same_nm = found.labels[:, None] == others.labels[None, :]
    return np.where(same_nm, iou_nm, 0.0).max(axis=1)


def mask_iou(first: Sequence[RoiMask], second: Sequence[RoiMask], height: int, width: int) -> np.ndarray:
    """float64 [n,m]: IoU of masks of one image."""
    from pycocotools import mask as coco_mask

    if not len(first) or not len(second):
        return np.zeros((len(first), len(second)))
    sides = [list(rois_to_rles(masks, height, width)) for masks in (first, second)]
    return np.asarray(coco_mask.iou(*sides, [0] * len(second)), np.float64)
