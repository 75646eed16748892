"""What a data set hands to training: one image with everything that must stay aligned with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apex_runtime.data.roi_mask import RoiMask


@dataclass(frozen=True, eq=False)
class Sample:
    """``image`` uint8 [h,w,3] RGB; ``boxes`` float32 [n,4] xyxy pixels; ``labels`` int64 [n]; ``masks`` n masks cut to their
    boxes, or None where there is only a box; ``original_size`` (height, width) before any augmentation."""

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    masks: list[RoiMask | None]
    image_id: int
    original_size: tuple[int, int]

    def __post_init__(self) -> None:
        if not len(self.boxes) == len(self.labels) == len(self.masks):
            raise ValueError(f"{len(self.boxes)} boxes, {len(self.labels)} labels, {len(self.masks)} masks do not match")
