"""TilePack, version 1: what the op means, in NumPy.

Level 0 is the whole grid: rows x cols tiles of ``tile`` x ``tile`` image pixels, ids row-major, every tile seen with ``halo``
real pixels around it, and 0 outside the image. Version 1 serves files of routing depth 1, so 0 is the only level it defines: at
depth 2 and 3 a level also changes the resolution a tile is read at, and what level 0 reads then depends on the depth. Other
values are refused.
"""

from __future__ import annotations

import numpy as np

from apex_plugins.spec import TILE_CELL, OpSpec

SPEC = OpSpec(
    name="TilePack",
    inputs={"image": "float", "ids": "int64", "levels": "int64"},
    outputs={"tiles": "float"},
    attributes={"tile": int, "halo": int},
)


def output_shape(image: tuple[int, ...], ids: tuple[int, ...], tile: int, halo: int) -> tuple[int, ...]:
    """[B,3,H,W] and [B,K] give [B,K,3,P,P] with P = tile + 2 * halo."""
    return (image[0], ids[1], image[1], tile + 2 * halo, tile + 2 * halo)


def tile_pack(image_BCHW: np.ndarray, ids_BK: np.ndarray, levels_BK: np.ndarray, *, tile: int, halo: int) -> np.ndarray:
    """The tiles of ``ids_BK`` with their halo, [B,K,C,P,P] in the type of the image. Raises ValueError on what does not fit."""
    if image_BCHW.ndim != 4:
        raise ValueError(f"TilePack: image must be [B,3,H,W], got shape {image_BCHW.shape}")
    if tile <= 0 or tile % TILE_CELL or halo < 0 or halo % TILE_CELL:
        raise ValueError(f"TilePack: tile {tile} and halo {halo} must be multiples of {TILE_CELL}, tile positive")
    height, width = image_BCHW.shape[2:]
    if height % tile or width % tile:
        raise ValueError(f"TilePack: image {height}x{width} is not a multiple of tile {tile}")
    cols = width // tile
    check_ids("TilePack", ids_BK, levels_BK, image_BCHW.shape[0], height // tile * cols)
    padded = np.pad(image_BCHW, ((0, 0), (0, 0), (halo, halo), (halo, halo)))
    side = tile + 2 * halo
    out = np.empty(output_shape(image_BCHW.shape, ids_BK.shape, tile, halo), image_BCHW.dtype)
    for b, k in np.ndindex(*ids_BK.shape):
        row, col = divmod(int(ids_BK[b, k]), cols)
        out[b, k] = padded[b, :, row * tile : row * tile + side, col * tile : col * tile + side]
    return out


def check_ids(op: str, ids_BK: np.ndarray, levels_BK: np.ndarray, batch: int, count: int) -> None:
    """Refuse ids or levels that are not int64 [batch, K >= 1], ids outside 0..count-1 and levels other than 0."""
    for name, value in (("ids", ids_BK), ("levels", levels_BK)):
        if value.ndim != 2 or value.shape[0] != batch or value.dtype != np.int64:
            raise ValueError(f"{op}: {name} must be int64 [{batch},K], got {value.dtype} {value.shape}")
    if ids_BK.shape != levels_BK.shape or ids_BK.shape[1] == 0:
        raise ValueError(f"{op}: ids {ids_BK.shape} and levels {levels_BK.shape} must agree and hold at least one tile")
    if ids_BK.min() < 0 or ids_BK.max() >= count:
        raise ValueError(f"{op}: ids must lie in 0..{count - 1}, got {ids_BK.min()}..{ids_BK.max()}")
    if levels_BK.any():
        raise ValueError(f"{op}: version 1 knows level 0 only, got levels {np.unique(levels_BK).tolist()}")
