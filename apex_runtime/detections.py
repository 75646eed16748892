"""What an image gave: boxes, classes, masks, and where the model looked closely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.postprocess.letterbox import Letterbox


@dataclass(frozen=True, eq=False)
class Detections:
    """The n detections of one image, best first, in pixels of the source image.

    ``boxes`` float32 [n,4] xyxy; ``scores`` float32 [n]; ``labels`` int64 [n], positions in ``ModelInfo.classes``;
    ``category_ids`` int64 [n], ids of those classes; ``masks`` n masks cut to their boxes; those of an engine are assembled when
    they are asked for. ``tile_ids`` and ``tile_levels`` int64 [K] are the tiles that ran, ``n_content`` how many tiles of the
    grid show the image, ``letterbox`` how it was scaled.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    category_ids: np.ndarray
    masks: Sequence[RoiMask]
    tile_ids: np.ndarray
    tile_levels: np.ndarray
    n_content: int
    letterbox: Letterbox

    def __len__(self) -> int:
        return len(self.scores)
