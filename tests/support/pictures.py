"""Small pictures with known bright discs, for tests of the pipeline."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

Disc = tuple[int, int, int]  # x, y, radius


def discs(height: int, width: int, *places: Disc) -> np.ndarray:
    """uint8 [height,width,3]: white discs on black."""
    image = np.zeros((height, width, 3), np.uint8)
    for x, y, radius in places:
        cv2.circle(image, (x, y), radius, (255, 255, 255), -1)
    return image


def save(path: Path, image: np.ndarray) -> Path:
    """Write an RGB (or grey, or RGBA) picture in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    order = image if image.ndim == 2 else image[:, :, [2, 1, 0, 3][: image.shape[2]]]
    assert cv2.imwrite(str(path), order)
    return path
