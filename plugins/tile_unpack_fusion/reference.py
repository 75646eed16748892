"""TileUnpackFusion, version 1: what the op means, in NumPy.

The map is the stride-8 map of the image; a tile of ``tile`` image pixels covers n = tile / 8 cells of it a side. Ids and levels
are those of TilePack: one level a call, row-major ids on its own grid. What was seen of a tile at 1 / 2^(d-1-l) of the resolution
has t / 8 cells a side and is upsampled to n by whoever calls, every cell repeated. The levels are unpacked one after the
other, coarsest first, and the map that one leaves is the base of the next: so finer overrides coarser.
"""

from __future__ import annotations

import numpy as np

from apex_plugins.spec import TILE_CELL, OpSpec
from apex_plugins.tile_pack.reference import check_ids

SPEC = OpSpec(
    name="TileUnpackFusion",
    inputs={"base": "float", "tiles": "float", "ids": "int64", "levels": "int64", "alpha": "float"},
    outputs={"merged": "float"},
    attributes={"tile": int},
)


def output_shape(base: tuple[int, ...]) -> tuple[int, ...]:
    """merged has the shape of base, [B,C,h,w]."""
    return base


def tile_unpack_fusion(
    base_BChw: np.ndarray,
    tiles_BKCnn: np.ndarray,
    ids_BK: np.ndarray,
    levels_BK: np.ndarray,
    alpha_BK1nn: np.ndarray,
    *,
    tile: int,
) -> np.ndarray:
    """base + alpha * (tiles - base) on the selected tiles, base elsewhere. Raises ValueError on what does not fit."""
    n = tile // TILE_CELL
    _check(base_BChw, tiles_BKCnn, ids_BK, levels_BK, alpha_BK1nn, tile)
    cols = base_BChw.shape[3] // n
    merged = base_BChw.copy()
    for b, k in np.ndindex(*ids_BK.shape):
        row, col = divmod(int(ids_BK[b, k]), cols)
        window = np.s_[b, :, row * n : (row + 1) * n, col * n : (col + 1) * n]
        merged[window] = base_BChw[window] + alpha_BK1nn[b, k] * (tiles_BKCnn[b, k] - base_BChw[window])
    return merged


def _check(base: np.ndarray, tiles: np.ndarray, ids: np.ndarray, levels: np.ndarray, alpha: np.ndarray, tile: int) -> None:
    if tile <= 0 or tile % TILE_CELL:
        raise ValueError(f"TileUnpackFusion: tile {tile} must be a positive multiple of {TILE_CELL}")
    n = tile // TILE_CELL
    if base.ndim != 4 or base.shape[2] % n or base.shape[3] % n:
        raise ValueError(f"TileUnpackFusion: base must be [B,C,h,w] with h and w multiples of {n}, got shape {base.shape}")
    batch, channels, height, width = base.shape
    check_ids("TileUnpackFusion", ids, levels, batch, (height // n) * (width // n))
    count = ids.shape[1]
    if tiles.shape != (batch, count, channels, n, n) or alpha.shape != (batch, count, 1, n, n):
        raise ValueError(
            f"TileUnpackFusion: tiles must be {(batch, count, channels, n, n)} and alpha {(batch, count, 1, n, n)}, "
            f"got {tiles.shape} and {alpha.shape}"
        )
    if any(len(set(row)) < count for row in ids.tolist()):
        raise ValueError("TileUnpackFusion: an image names the same tile twice; which one would win is undefined")
