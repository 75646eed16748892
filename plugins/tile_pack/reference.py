"""TilePack, version 1: what the op means, in NumPy.

A call cuts tiles of ``tile`` x ``tile`` image pixels out of the grid of such tiles, ids row-major, every tile seen with ``halo``
real pixels around it, and 0 outside the image.

Levels: a file of routing depth d (1 to 3) has levels 0, the coarsest, to d - 1, the finest. A tile of level l covers
t * 2^(d-1-l) pixels of the image a side, and ids are row-major on that level's own grid: tile (r, c) of level l has the children
(2r, 2c), (2r, 2c+1), (2r+1, 2c), (2r+1, 2c+1) of level l + 1. All are sampled to t x t with a halo of h: a call reads one level,
at full resolution, with tile = t * 2^(d-1-l) and halo = h * 2^(d-1-l), and whoever called it averages 2^(d-1-l) x 2^(d-1-l)
pixels to one. So ``levels`` says which level the call is of, one value throughout, and changes nothing that the attributes do not
say; a mix is refused, for its tiles would be of different sizes. At depth 1 there is level 0 alone, tile = t and halo = h.
"""

from __future__ import annotations

import numpy as np

from apex_plugins.spec import MAX_DEPTH, TILE_CELL, OpSpec

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
    """Refuse ids or levels that are not int64 [batch, K], ids outside 0..count-1, and levels that are not one of 0..2.

    Level 0 always has tiles; a finer one may have none, K = 0, and then nothing tells which level it is.
    """
    for name, value in (("ids", ids_BK), ("levels", levels_BK)):
        if value.ndim != 2 or value.shape[0] != batch or value.dtype != np.int64:
            raise ValueError(f"{op}: {name} must be int64 [{batch},K], got {value.dtype} {value.shape}")
    if ids_BK.shape != levels_BK.shape:
        raise ValueError(f"{op}: ids {ids_BK.shape} and levels {levels_BK.shape} must agree")
    if ids_BK.size == 0:
        return
    if ids_BK.min() < 0 or ids_BK.max() >= count:
        raise ValueError(f"{op}: ids must lie in 0..{count - 1}, got {ids_BK.min()}..{ids_BK.max()}")
    found = np.unique(levels_BK).tolist()
    if len(found) > 1 or not 0 <= found[0] < MAX_DEPTH:
        raise ValueError(f"{op}: a call reads one level of 0..{MAX_DEPTH - 1}, got levels {found}")
