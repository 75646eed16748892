"""Where a crop looks and how it is turned: every picture's geometry is drawn as one matrix, so that it is resampled once.

Coordinates are continuous: pixel (row i, column j) covers [j, j+1) x [i, i+1), its centre is (j + 0.5, i + 0.5). A matrix float64
[3,3] takes a column (x, y, 1) of source pixels to pixels of the frame, the rectangle of the crop that the picture fills.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from apex_train.config import AugmentConfig


@dataclass(frozen=True)
class Window:
    """Source pixels [top:bottom, left:right], scaled to ``height`` x ``width`` pixels of the frame.

    Whole pixels on both sides: the shrinking filter of the image then has cells that the masks can be measured on exactly.
    """

    left: int
    top: int
    right: int
    bottom: int
    width: int
    height: int

    @property
    def scale(self) -> tuple[float, float]:
        """Exact factors (x, y) from source to frame pixels."""
        return self.width / (self.right - self.left), self.height / (self.bottom - self.top)


def random_matrix(
    shape: tuple[int, int], frame: tuple[int, int], letterbox: tuple[int, int], config: AugmentConfig, rng: np.random.Generator
) -> np.ndarray:
    """Scale jitter, place, affine, flips and turns of a picture of ``shape`` (height, width) as one matrix [3,3].

    ``frame`` (height, width) is what the picture fills, ``letterbox`` (height, width) what gives the scale.
    """
    mirrored, upended, transposed = (
        bool(rng.random() < share) for share in (config.flip_horizontal, config.flip_vertical, config.transpose)
    )
    before = frame[::-1] if transposed else frame  # what is transposed last has the other sides until then
    window = random_window(shape, before, letterbox, config, rng)
    sx, sy = window.scale
    if rng.random() < config.affine:
        shift_x, shift_y = (side * rng.uniform(-config.translate, config.translate) for side in before[::-1])
        centre = translation(before[1] / 2 + shift_x, before[0] / 2 + shift_y)
        back = translation(-(window.left + window.right) / 2, -(window.top + window.bottom) / 2)
        matrix = centre @ random_affine(config, rng) @ scaling(sx, sy) @ back
    else:
        matrix = scaling(sx, sy) @ translation(-window.left, -window.top)
    return orientation(mirrored, upended, transposed, before) @ matrix


def random_window(
    shape: tuple[int, int], frame: tuple[int, int], letterbox: tuple[int, int], config: AugmentConfig, rng: np.random.Generator
) -> Window:
    """Where to look: a scale log-uniform around the letterbox scale, then a place uniform over the image.

    A picture smaller than the frame is seen whole, in its upper left corner.
    """
    height, width = shape
    jitter = np.exp(rng.uniform(np.log(config.scale_min), np.log(config.scale_max)))
    scale = min(letterbox[0] / height, letterbox[1] / width) * jitter
    left, span_x, out_w = _extent(width, frame[1], scale, rng)
    top, span_y, out_h = _extent(height, frame[0], scale, rng)
    return Window(left, top, left + span_x, top + span_y, out_w, out_h)


def _extent(side: int, room: int, scale: float, rng: np.random.Generator) -> tuple[int, int, int]:
    """Start and length of the window in a picture side, and the length it becomes within ``room`` pixels."""
    span = min(side, max(1, round(room / scale)))
    length = room if span < side else min(room, max(1, round(side * scale)))
    return int(rng.integers(0, side - span + 1)), span, length


def random_affine(config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Rotation, shear and a stretch that keeps the area, about the origin, as a matrix [3,3]."""
    angle = math.radians(rng.uniform(-config.rotate, config.rotate))
    slant = math.tan(math.radians(rng.uniform(-config.shear, config.shear)))
    stretch = math.exp(0.5 * rng.uniform(-1, 1) * math.log(config.stretch))
    turned = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    return turned @ np.array([[1, slant, 0], [0, 1, 0], [0, 0, 1]]) @ scaling(stretch, 1 / stretch)


def orientation(mirrored: bool, upended: bool, transposed: bool, shape: tuple[int, int]) -> np.ndarray:
    """Left-right and up-down flips of a frame of ``shape`` (height, width), then the exchange of its axes: whole numbers only.

    The eight results are all flips and all turns by 90 degrees.
    """
    matrix = np.eye(3)
    if mirrored:
        matrix[0] = (-1, 0, shape[1])
    if upended:
        matrix[1] = (0, -1, shape[0])
    return matrix[[1, 0, 2]] if transposed else matrix


def translation(x: float, y: float) -> np.ndarray:
    """The shift by (x, y) as a matrix [3,3]."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def scaling(x: float, y: float) -> np.ndarray:
    """The scale by x and y about the origin as a matrix [3,3]."""
    return np.array([[x, 0, 0], [0, y, 0], [0, 0, 1]], np.float64)


def warped_bounds(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The bounds [n,4] of the warped corners of ``boxes`` [n,4]. Tight where axes stay axes; loose after a rotation or a shear,
    for the corners of a box are rarely a part of its object."""
    x, y = boxes[:, [0, 2, 2, 0]], boxes[:, [1, 1, 3, 3]]
    new_x, new_y = (row[0] * x + row[1] * y + row[2] for row in matrix[:2])
    return np.stack([new_x.min(1), new_y.min(1), new_x.max(1), new_y.max(1)], 1)
