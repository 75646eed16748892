"""Small satellite sets that tests write: images, masks with blocks of a value, and a description."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

Block = tuple[int, int, int, int, int]  # x, y, width, height, value


def blocks(height: int, width: int, *where: Block) -> np.ndarray:
    """A grey mask, uint8 [height,width], with rectangles of a value."""
    mask = np.zeros((height, width), np.uint8)
    for x, y, columns, rows, value in where:
        mask[y : y + rows, x : x + columns] = value
    return mask


def write_picture(path: Path, pixels: np.ndarray) -> Path:
    """A picture file (colours in the order of OpenCV); folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


def write_image(path: Path, height: int = 40, width: int = 60, seed: int = 0) -> Path:
    """An image of noise."""
    return write_picture(path, np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def write_pair(root: Path, image: str, mask: str, *where: Block, height: int = 40, width: int = 60) -> None:
    """An image and its mask; by default one block of 10 x 12 pixels."""
    write_image(root / image, height, width, seed=len(image))
    write_picture(root / mask, blocks(height, width, *(where or [(5, 6, 10, 12, 255)])))


def describe_as(root: Path, **options: object) -> Path:
    """``satellite.yaml`` in the folder (JSON is YAML)."""
    path = root / "satellite.yaml"
    path.write_text(json.dumps(options))
    return path
