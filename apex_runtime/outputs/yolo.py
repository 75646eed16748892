"""One image's detections as YOLO text: a line ``class x y x y ... score`` each, corners as shares of the image's sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from apex_runtime.model_info import Category
from apex_runtime.outputs.contours import outlines
from apex_runtime.postprocess.rle import rle_to_roi


def yolo_text(record: dict[str, Any], categories: Sequence[Category]) -> str:
    """The text for a record of results.jsonl. The class is its position among ``categories``.

    The format has one ring per object: of a mask in several regions the largest, without holes; of an empty one the box.
    """
    places = {category.id: place for place, category in enumerate(categories)}
    sides = np.array([record["width"], record["height"]], np.float64)
    lines = [
        " ".join(
            [
                str(places[item["category_id"]]),
                *(f"{value:.6f}" for value in (_ring(item) / sides).ravel()),
                f"{item['score']:.6f}",
            ]
        )
        for item in record["annotations"]
    ]
    return "".join(line + "\n" for line in lines)


def _ring(item: dict[str, Any]) -> np.ndarray:
    mask = rle_to_roi(item["segmentation"])
    if mask is not None:
        return outlines(mask)[0][0]
    x, y, width, height = item["bbox"]
    return np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])
