"""One PNG per object: its mask on the whole image, 255 inside."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from apex_runtime.files import write_atomically
from apex_runtime.model_info import Category
from apex_runtime.postprocess.rle import rle_to_roi


def write_masks(folder: Path, record: dict[str, Any], categories: Sequence[Category], least: float) -> None:
    """The masks of a record of results.jsonl that score at least ``least``, best first: ``0001-nucleus.png``. Raises OSError."""
    names = {category.id: re.sub(r"[^\w-]+", "_", category.name) for category in categories}
    strong = [item for item in record["annotations"] if item["score"] >= least]
    for number, item in enumerate(strong, 1):
        mask = rle_to_roi(item["segmentation"])
        shape = record["height"], record["width"]
        full = np.zeros(shape, np.uint8) if mask is None else mask.full(*shape)
        path = folder / f"{number:04d}-{names[item['category_id']]}.png"
        ok, data = cv2.imencode(".png", full * np.uint8(255), [cv2.IMWRITE_PNG_BILEVEL, 1])
        if not ok:
            raise OSError(f"{path}: PNG encoding failed")
        write_atomically(path, data.tobytes())
