"""Which tiles of the grid show the image, and which only padding."""

from __future__ import annotations

import numpy as np

from apex_runtime.model_info import TileInfo
from apex_runtime.postprocess.letterbox import Letterbox
from apex_runtime.routing.selection import MAX_BONUS


def content_tiles(letterbox: Letterbox, tiles: TileInfo) -> np.ndarray:
    """bool [N], row-major, level after level: True for tiles that overlap the scaled image. The content starts top left, so at
    least one of every level does."""
    height, width = letterbox.content
    parts = []
    for level in tiles.levels:
        grid = np.zeros((level.rows, level.cols), bool)
        grid[: -(-height // level.side), : -(-width // level.side)] = True
        parts.append(grid.reshape(-1))
    return np.concatenate(parts)


def padding_bonus(content_N: np.ndarray) -> np.ndarray:
    """float32 [N], the ``tile_bonus`` of one image: 0 for content, -24 for padding, which is then never chosen first."""
    return np.where(content_N, 0.0, -MAX_BONUS).astype(np.float32)
