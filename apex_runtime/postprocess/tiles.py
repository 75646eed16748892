"""Where the model looked closely: the tiles that ran, in pixels of the source image."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from apex_runtime.model_info import TileInfo
from apex_runtime.postprocess.letterbox import Letterbox


class Tile(NamedTuple):
    """A tile that was looked at: its number on its level, the level (0 is the coarsest), and ``bbox`` (x, y, width, height) in
    source pixels, cut to the image and rounded to a thousandth."""

    id: int
    level: int
    bbox: tuple[float, float, float, float]


def looked_tiles(ids_K: np.ndarray, levels_K: np.ndarray, tiles: TileInfo, letterbox: Letterbox) -> list[Tile]:
    """The tiles with these ids, int64 [K], on these levels, int64 [K], in that order."""
    return [_tile(*pair, tiles, letterbox) for pair in zip(ids_K.tolist(), levels_K.tolist(), strict=True)]


def tile_records(ids_K: np.ndarray, levels_K: np.ndarray, tiles: TileInfo, letterbox: Letterbox) -> list[dict[str, Any]]:
    """``looked_tiles`` as results.json has them: ``{id, level, bbox}``."""
    found = looked_tiles(ids_K, levels_K, tiles, letterbox)
    return [{"id": tile.id, "level": tile.level, "bbox": list(tile.bbox)} for tile in found]


def _tile(identity: int, level: int, tiles: TileInfo, letterbox: Letterbox) -> Tile:
    scale_y, scale_x = letterbox.scales
    grid = tiles.levels[level]
    row, col = divmod(identity, grid.cols)
    x1, y1 = col * grid.side / scale_x, row * grid.side / scale_y
    x2 = min(x1 + grid.side / scale_x, letterbox.source_width)
    y2 = min(y1 + grid.side / scale_y, letterbox.source_height)
    return Tile(identity, level, (round(x1, 3), round(y1, 3), round(max(0.0, x2 - x1), 3), round(max(0.0, y2 - y1), 3)))
