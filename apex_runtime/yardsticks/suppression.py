"""NMS for yardsticks that leave it to their host: OpenCV's."""

from __future__ import annotations

import numpy as np

from apex_runtime.yardsticks.decode import Candidates
from apex_runtime.yardsticks.description import Suppression


def suppress(candidates: Candidates, wanted: Suppression) -> Candidates:
    """What is left, best first: no two (of one class, where ``per_class``) share more than ``iou`` of their union."""
    import cv2

    if len(candidates.scores) == 0:
        return candidates
    boxes = candidates.boxes.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]  # OpenCV has corner and size
    if wanted.per_class:
        kept = cv2.dnn.NMSBoxesBatched(boxes.tolist(), candidates.scores.tolist(), candidates.labels.tolist(), 0.0, wanted.iou)
    else:
        kept = cv2.dnn.NMSBoxes(boxes.tolist(), candidates.scores.tolist(), 0.0, wanted.iou)
    return candidates.at(np.asarray(kept, np.int64).reshape(-1))
