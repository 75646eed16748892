"""How well one image went: detections against objects, and the figure by which the pictures of a report are chosen.

AP ranks the detections of a whole set and says little of one image. Here an image is judged as its reader would: what scores at
least ``MIN_SCORE`` is a claim; a claim is right when it overlaps an object of its class by IoU 0.5 or more that no better claim
has taken. The score is the F1 of that, 2 hits / (claims + objects); 1 when there is nothing to find and nothing was claimed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apex_runtime.data.dataset import Instances
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.detections import Detections

MIN_SCORE = 0.3
MIN_IOU = 0.5


@dataclass(frozen=True, eq=False)
class ImageMatch:
    """``hit`` and ``ignored`` bool [D] per detection, ``found`` bool [G] per object, ``judged`` bool [G]: not a crowd region."""

    hit: np.ndarray
    ignored: np.ndarray
    found: np.ndarray
    judged: np.ndarray

    @property
    def objects(self) -> int:
        """Objects that were there to be found."""
        return int(self.judged.sum())

    @property
    def hits(self) -> int:
        """Objects that were found."""
        return int(self.hit.sum())

    @property
    def false(self) -> int:
        """Claims that are wrong; those in crowd regions are neither right nor wrong."""
        return int((~self.hit & ~self.ignored).sum())

    @property
    def f1(self) -> float:
        """2 hits / (claims + objects)."""
        total = 2 * self.hits + self.false + (self.objects - self.hits)
        return 2 * self.hits / total if total else 1.0


def match_image(found: Detections, truth: Instances, label_of: dict[int, int], by_mask: bool) -> ImageMatch:
    """Match the detections of an image (best first) with its objects as COCO does at IoU 0.5.

    ``label_of``: the label in ``truth`` of a label of the model; a class that is not in it has no object. ``by_mask``: overlap of
    masks, and what has none is a region that counts neither way; else overlap of boxes.
    """
    size = found.letterbox.source_height, found.letterbox.source_width
    without = np.array([mask is None for mask in truth.masks], bool) if by_mask else np.zeros(len(truth), bool)
    crowd_G = truth.crowd | without
    iou_DG = overlaps(found, truth, crowd_G, size, by_mask)
    same_DG = np.array([label_of.get(int(label), -1) for label in found.labels], np.int64)[:, None] == truth.labels[None, :]
    iou_DG = np.where(same_DG, iou_DG, 0.0)
    hit, ignored, taken_G = np.zeros(len(found), bool), np.zeros(len(found), bool), np.zeros(len(truth), bool)
    for d in range(len(found)):
        overlap_G = np.where(taken_G, 0.0, iou_DG[d])
        real_G = np.where(crowd_G, 0.0, overlap_G)
        if real_G.max(initial=0.0) >= MIN_IOU:
            hit[d] = taken_G[int(real_G.argmax())] = True
        else:
            ignored[d] = overlap_G.max(initial=0.0) >= MIN_IOU
    return ImageMatch(hit, ignored, taken_G, ~crowd_G)


def overlaps(found: Detections, truth: Instances, crowd_G: np.ndarray, size: tuple[int, int], by_mask: bool) -> np.ndarray:
    """IoU float64 [D,G]; with a crowd region (bool [G]) the share of the detection that lies in it.

    ``size`` (height, width) of the image. ``by_mask``: of masks, and what has none counts with its box; else of boxes.
    """
    from pycocotools import mask as coco_mask

    from apex_runtime.postprocess.rle import roi_to_rle

    if not len(found) or not len(truth):
        return np.zeros((len(found), len(truth)))
    crowd = crowd_G.astype(np.uint8).tolist()
    if not by_mask:
        return np.asarray(coco_mask.iou(_xywh(found.boxes), _xywh(truth.boxes), crowd))
    masks = [_box_mask(box, size) if mask is None else mask for mask, box in zip(truth.masks, truth.boxes, strict=True)]
    claims, objects = ([roi_to_rle(mask, *size) for mask in part] for part in (found.masks, masks))
    return np.asarray(coco_mask.iou(claims, objects, crowd))


def _xywh(boxes_N4: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes_N4[:, :2], boxes_N4[:, 2:] - boxes_N4[:, :2]], axis=1).astype(np.float64)


def _box_mask(box_4: np.ndarray, size: tuple[int, int]) -> RoiMask:
    """The rectangle of a box as a mask, cut to the image."""
    x1, y1 = (int(np.clip(np.floor(side), 0, limit - 1)) for side, limit in zip(box_4[:2], size[::-1], strict=True))
    x2, y2 = (int(np.clip(np.ceil(side), 1, limit)) for side, limit in zip(box_4[2:], size[::-1], strict=True))
    return RoiMask(x1, y1, np.ones((max(1, y2 - y1), max(1, x2 - x1)), np.uint8))
