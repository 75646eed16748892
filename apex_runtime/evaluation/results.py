"""Detections in the COCO result format (https://cocodataset.org/#format-results)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apex_runtime.detections import Detections
from apex_runtime.postprocess.rle import rois_to_rles


def detections_to_results(detections: Detections, image_id: int) -> list[dict[str, Any]]:
    """One entry per detection: image_id, category_id, bbox [x,y,w,h] in pixels, score, segmentation as compressed RLE.

    Boxes are rounded to a thousandth of a pixel; scores keep all digits of float32, so that no ties arise.
    """
    height, width = detections.letterbox.source_height, detections.letterbox.source_width
    encoded = rois_to_rles(detections.masks, height, width)
    rows = zip(detections.boxes.tolist(), detections.scores.tolist(), detections.category_ids.tolist(), encoded, strict=True)
    return [result(image_id, category, box, score, segmentation) for box, score, category, segmentation in rows]


def result(
    image_id: int, category_id: int, box_xyxy: Sequence[float], score: float, segmentation: dict[str, Any]
) -> dict[str, Any]:
    """One entry of a list of COCO results."""
    x1, y1, x2, y2 = box_xyxy
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [round(x1, 3), round(y1, 3), round(x2 - x1, 3), round(y2 - y1, 3)],
        "score": float(f"{score:.9g}"),
        "segmentation": segmentation,
    }
