"""Instances laid on one another until every pixel has one: how a detector gets a panoptic quality of its things."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from apex_runtime.data.coco.panoptic import Segment
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.evaluation.coco_documents import as_rle
from apex_runtime.evaluation.panoptic_quality import PanopticImage
from apex_runtime.postprocess.rle import rle_to_roi

# Those of panopticapi's combine_semantic_and_instance_predictions.py and of Panoptic FPN (https://arxiv.org/abs/1901.02446).
MIN_SCORE = 0.5
MAX_OVERLAP = 0.5


def merge_panoptic(
    detections: Sequence[dict[str, Any]], height: int, width: int, min_score: float = MIN_SCORE, max_overlap: float = MAX_OVERLAP
) -> PanopticImage:
    """COCO results of one image as a panoptic image of height x width pixels; segment ids are 1, 2, ... by score.

    In descending order of score, those of at least ``min_score``: a detection takes the pixels of its mask that are still free,
    and is dropped when more than ``max_overlap`` of its mask is taken. Stuff is not predicted: the rest stays void.
    """
    ids_hw = np.zeros((height, width), np.int32)
    segments: list[Segment] = []
    for entry in sorted(detections, key=lambda each: -each["score"]):
        mask = rle_to_roi(as_rle(entry["segmentation"], height, width)) if entry["score"] >= min_score else None
        if mask is not None and _paste(ids_hw, mask, len(segments) + 1, max_overlap):
            segments.append(Segment(len(segments) + 1, entry["category_id"], False, 0.0))
    return PanopticImage(ids_hw, tuple(segments))


def _paste(ids_hw: np.ndarray, mask: RoiMask, segment_id: int, max_overlap: float) -> bool:
    """Write the free pixels of a mask; says whether there were enough of them."""
    rows, cols = mask.bits.shape
    window = ids_hw[mask.y : mask.y + rows, mask.x : mask.x + cols]
    free = (mask.bits > 0) & (window == 0)
    left = int(np.count_nonzero(free))
    if left == 0 or mask.area - left > max_overlap * mask.area:
        return False
    window[free] = segment_id
    return True


def merged(results: Sequence[dict[str, Any]]) -> Callable[[int, int, int], PanopticImage]:
    """The panoptic image of each image of COCO results, for ``panoptic_quality``."""
    by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for entry in results:
        by_image[entry["image_id"]].append(entry)
    return lambda image_id, height, width: merge_panoptic(by_image[image_id], height, width)
