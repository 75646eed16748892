"""A random training sample: where the crop looks, four pictures in one, pasted objects, light.

Each picture's flips, turns, scale, affine and place are one matrix, so that it is resampled once (``warp.py``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np

from apex_train.config import AugmentConfig
from apex_train.data.colour import relight
from apex_train.data.copy_paste import paste_objects
from apex_train.data.geometry import random_matrix
from apex_train.data.place import place, side_by_side
from apex_train.data.regions import Rect
from apex_train.data.sample import Sample

Shape = tuple[int, int]  # height, width in pixels

MOSAIC_CENTRE = (0.3, 0.7)  # shares of the crop between which its four pictures meet


class Pictures(Protocol):
    """The samples of a set as they lie on the disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


def augment(
    pictures: Pictures, index: int, letterbox: Shape, crop: Shape, config: AugmentConfig, rng: np.random.Generator
) -> Sample:
    """A random piece of sample ``index`` that fills ``crop``, at about the scale that ``letterbox`` gives the picture.

    Everything random comes from ``rng``, the partners of a mosaic and of pasting too.
    """
    *partners, donor = _others(index, len(pictures), 4, rng)
    if rng.random() < config.mosaic:
        piece = _mosaic([pictures[i] for i in (index, *partners)], letterbox, crop, config, rng)
    else:
        piece = _piece(pictures[index], crop, letterbox, config, rng)
    if rng.random() < config.copy_paste:
        pasted = _piece(pictures[donor], crop, letterbox, config, rng)
        piece = paste_objects(piece, pasted, config.copy_paste_objects, config.keep_visible, rng)
    return replace(piece, image=relight(piece.image, config, rng))


def _piece(sample: Sample, frame: Shape, letterbox: Shape, config: AugmentConfig, rng: np.random.Generator) -> Sample:
    matrix = random_matrix(sample.image.shape[:2], frame, letterbox, config, rng)
    return place(sample, matrix, frame, config.keep_visible)


def _mosaic(four: list[Sample], letterbox: Shape, crop: Shape, config: AugmentConfig, rng: np.random.Generator) -> Sample:
    """Four pictures that meet in a random point, the sample itself in the upper left."""
    height, width = crop
    x, y = (round(side * rng.uniform(*MOSAIC_CENTRE)) for side in (width, height))
    places = [Rect(0, 0, x, y), Rect(x, 0, width, y), Rect(0, y, x, height), Rect(x, y, width, height)]
    pieces = [_piece(sample, (at.height, at.width), letterbox, config, rng) for sample, at in zip(four, places, strict=True)]
    return side_by_side(pieces, places, crop)


def _others(index: int, count: int, wanted: int, rng: np.random.Generator) -> list[int]:
    """Other samples of a set of ``count``; a set that has not so many gives some twice, a single one itself."""
    if count == 1:
        return [index] * wanted
    steps = rng.choice(count - 1, wanted, replace=count - 1 < wanted)
    return [(index + 1 + int(step)) % count for step in steps]
