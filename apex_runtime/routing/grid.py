"""Which tiles of the grid show the image, and which only padding."""

from __future__ import annotations

import numpy as np

from apex_runtime.model_info import TileInfo
from apex_runtime.postprocess.letterbox import Letterbox
from apex_runtime.routing.selection import MAX_BONUS


def content_tiles(letterbox: Letterbox, tiles: TileInfo) -> np.ndarray:
    """bool [N], row-major: True for tiles that overlap the scaled image. The content starts top left, so at least one does."""
    height, width = letterbox.content
    rows, cols = -(-height // tiles.tile), -(-width // tiles.tile)
    grid = np.zeros((tiles.rows, tiles.cols), bool)
    grid[:rows, :cols] = True
    return grid.reshape(-1)


def padding_bonus(content_N: np.ndarray) -> np.ndarray:
    """float32 [N], the graph's ``tile_bonus`` for one image: 0 for content, -24 for padding, which is then never chosen first."""
    return np.where(content_N, 0.0, -MAX_BONUS).astype(np.float32)
