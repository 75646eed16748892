"""Regions to look at and regions to leave alone, as the ``tile_bonus`` that the selection adds to its key.

A tile that a region to look at touches is forced (+24), as far as the budget goes. A tile of which at least half is to be left
alone is forbidden (-24): it runs only when the budget exceeds all others. Where both are asked for, looking wins.

Legend: N tiles of all levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apex_runtime.model_info import TileInfo
from apex_runtime.postprocess.letterbox import Letterbox
from apex_runtime.routing.selection import MAX_BONUS

Region = Sequence[np.ndarray]  # rings float [n,2] x, y in pixels of the image; inside is what an odd number of them surrounds
IGNORED = 0.5  # share of a tile that makes it one to leave alone

_CELL = 8  # input pixels: sides of tiles are multiples of it, and finer than that no region needs to be
_SHIFT = 4  # binary digits of a fraction of a cell, for OpenCV


def steering_bonus(look: Sequence[Region], ignore: Sequence[Region], letterbox: Letterbox, tiles: TileInfo) -> np.ndarray:
    """float32 [N]: +24 for tiles to look at, -24 for those to leave alone, 0 for the rest."""
    seen = _cover(look, letterbox) > 0
    shunned = _cover(ignore, letterbox)
    parts = []
    for level in tiles.levels:
        side = level.side // _CELL
        shape = (level.rows, side, level.cols, side)
        forced = seen.reshape(shape).any((1, 3))
        left_alone = shunned.reshape(shape).mean((1, 3)) >= IGNORED
        parts.append(np.where(forced, MAX_BONUS, np.where(left_alone, -MAX_BONUS, 0.0)).reshape(-1))
    return np.concatenate(parts).astype(np.float32)


def steered(padding_N: np.ndarray, steering_N: np.ndarray) -> np.ndarray:
    """float32 [N]: the bonus of an image; padding stays forbidden."""
    return np.where(padding_N < 0, padding_N, padding_N + steering_N).astype(np.float32)


def _cover(regions: Sequence[Region], letterbox: Letterbox) -> np.ndarray:
    """float32 [cells,cells]: 1 where a region is, border cells included."""
    import cv2

    cover = np.zeros((letterbox.height // _CELL, letterbox.width // _CELL), np.uint8)
    vertical, horizontal = letterbox.scales
    for region in regions:
        one = np.zeros_like(cover)
        rings = [(ring * (horizontal, vertical) / _CELL - 0.5) * (1 << _SHIFT) for ring in region]
        cv2.fillPoly(one, [np.rint(ring).astype(np.int32) for ring in rings], 1, shift=_SHIFT)
        cover |= one
    return cover.astype(np.float32)
