"""Regions to look at and regions to leave alone, as the ``tile_bonus`` that the selection adds to its key.

A tile that a region to look at touches is forced (+24), as far as the budget goes. A tile of whose picture at least half is to be
left alone is forbidden (-24): it runs only when the budget exceeds all others. Where both are asked for, looking wins. Both are
decided to a pixel of the input.

Legend: N tiles of all levels, H x W input pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apex_runtime.data.clipping import clip_ring
from apex_runtime.model_info import LevelGrid, TileInfo
from apex_runtime.postprocess.letterbox import Letterbox
from apex_runtime.routing.selection import MAX_BONUS

Region = Sequence[np.ndarray]  # rings float [n,2] x, y in pixels of the image: an outer one and its holes
IGNORED = 0.5  # share of what a tile shows that makes it one to leave alone


def steering_bonus(look: Sequence[Region], ignore: Sequence[Region], letterbox: Letterbox, tiles: TileInfo) -> np.ndarray:
    """float32 [N]: +24 for tiles to look at, -24 for those to leave alone, 0 for the rest."""
    seen_HW, shunned_HW = (_cover(regions, letterbox) for regions in (look, ignore))
    shown_HW = np.zeros_like(seen_HW)
    rows, cols = letterbox.content
    shown_HW[:rows, :cols] = 1
    parts = []
    for level in tiles.levels:
        forced = _pixels(seen_HW, level) > 0
        shunned, shown = _pixels(shunned_HW, level), _pixels(shown_HW, level)
        left_alone = (shunned > 0) & (shunned >= IGNORED * shown)
        parts.append(np.where(forced, MAX_BONUS, np.where(left_alone, -MAX_BONUS, 0.0)))
    return np.concatenate(parts).astype(np.float32)


def steered(padding_N: np.ndarray, steering_N: np.ndarray) -> np.ndarray:
    """float32 [N]: the bonus of an image; padding stays forbidden."""
    return np.where(padding_N < 0, padding_N, padding_N + steering_N).astype(np.float32)


def _pixels(cover_HW: np.ndarray, level: LevelGrid) -> np.ndarray:
    """int64 [n]: how many pixels of each tile of a level are 1."""
    tiles = cover_HW.reshape(level.rows, level.side, level.cols, level.side)
    return tiles.sum((1, 3), dtype=np.int64).reshape(-1)


def _cover(regions: Sequence[Region], letterbox: Letterbox) -> np.ndarray:
    """uint8 [H,W]: 1 where a region is."""
    cover_HW = np.zeros((letterbox.height, letterbox.width), np.uint8)
    rows, cols = letterbox.content
    vertical, horizontal = letterbox.scales
    for region in regions:
        rings = [ring * (horizontal, vertical) for ring in region]
        points = np.concatenate(rings)
        if (points.max(0) > 0).all() and (points.min(0) < (cols, rows)).all():
            inside = _inside(rings, rows, cols)
            cover_HW[:rows, :cols] |= inside if inside.any() else _outline(rings[0], rows, cols)
    return cover_HW


def _inside(rings: Sequence[np.ndarray], rows: int, cols: int) -> np.ndarray:
    """uint8 [rows,cols]: 1 for pixels whose centre an odd number of rings surrounds. (``cv2.fillPoly`` and pycocotools also fill
    pixels that a ring only touches, and a box that is one tile would be four.)"""
    x1, y1 = np.concatenate(rings).T
    x2, y2 = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings]).T
    first, last = (np.ceil(end - 0.5).clip(0, rows).astype(np.int64) for end in (np.minimum(y1, y2), np.maximum(y1, y2)))
    count = last - first  # lines of pixel centres that an edge crosses
    edge = np.repeat(np.arange(len(count)), count)
    row = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    crossing = x1[edge] + (row + 0.5 - y1[edge]) * ((x2 - x1)[edge] / (y2 - y1)[edge])
    column = np.ceil(crossing - 0.5).clip(0, cols).astype(np.int64)
    turns = np.bincount(row * (cols + 1) + column, minlength=rows * (cols + 1)).reshape(rows, cols + 1)
    return (np.cumsum(turns, axis=1)[:, :cols] & 1).astype(np.uint8)


def _outline(ring: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """uint8 [rows,cols]: the pixels that the outline of a region runs through, for one that is too thin to hold a centre."""
    pixels = np.zeros((rows, cols), np.uint8)
    cut = clip_ring(ring, 0, 0, cols, rows)
    if len(cut):
        along = np.roll(cut, -1, axis=0) - cut
        steps = 2 * int(np.ceil(np.abs(along).max())) + 1
        points = (cut + np.linspace(0, 1, steps)[:, None, None] * along).reshape(-1, 2)
        column, row = np.minimum(points.astype(np.int64), (cols - 1, rows - 1)).T
        pixels[row, column] = 1
    return pixels
