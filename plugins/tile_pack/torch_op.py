"""TilePack in torch: the differentiable formula, and the custom op that stands for it while exporting.

Suffixes: B batch, K selected tiles, H and W image pixels, P = tile + 2 * halo.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from apex_plugins.kernels.torch_face import by_kernel
from apex_plugins.tile_pack.torch_cuda import OP, tile_pack_kernel


def tile_pack(image_B3HW: Tensor, ids_BK: Tensor, levels_BK: Tensor, tile: int, halo: int) -> Tensor:
    """Cut the tiles ``ids_BK`` with their halo out of the image: [B,K,3,P,P], P = tile + 2 * halo, 0 outside the image.

    ids_BK are int64, row-major on the grid of W / tile columns. levels_BK is the level that the call is of and changes nothing
    (see ``reference.py``, which checks values; here only shapes are looked at, so that no step waits for the device). Gradient
    flows to the image.
    While exporting, the call becomes one ``apex::TilePack`` node; on a GPU the kernel runs where it can (``torch_cuda.py``).
    """
    if torch.compiler.is_exporting():
        return torch.ops.apex.tile_pack(image_B3HW, ids_BK, levels_BK, tile, halo)
    return cast(Tensor, by_kernel(OP, tile_pack_kernel, tile_pack_formula, image_B3HW, ids_BK, tile, halo))


def tile_pack_formula(image_B3HW: Tensor, ids_BK: Tensor, tile: int, halo: int) -> Tensor:
    """An exact gather of the wanted pixels only, in runs of gcd(tile, halo) neighbours, which never straddle the image border."""
    batch, channels, height, width = image_B3HW.shape
    if height % tile or width % tile:
        raise ValueError(f"tile_pack: image {height}x{width} is not a multiple of tile {tile}")
    run = math.gcd(tile, halo)
    pad, side, runs_per_row = halo // run, (tile + 2 * halo) // run, width // run
    device = ids_BK.device
    cols = width // tile
    row_BK, col_BK = ids_BK // cols, ids_BK % cols
    y_BKP = row_BK[..., None] * tile - halo + torch.arange(tile + 2 * halo, device=device)
    x_BKR = col_BK[..., None] * (tile // run) - pad + torch.arange(side, device=device)
    inside_y, inside_x = (y_BKP >= 0) & (y_BKP < height), (x_BKR >= 0) & (x_BKR < runs_per_row)
    inside_BK1PR1 = (inside_y[..., :, None] & inside_x[..., None, :])[:, :, None, :, :, None]
    pixel_BKPR = y_BKP.clamp(0, height - 1)[..., :, None] * runs_per_row + x_BKR.clamp(0, runs_per_row - 1)[..., None, :]
    plane_B1C11 = torch.arange(batch * channels, device=device).view(batch, 1, channels, 1, 1) * (height * runs_per_row)
    index_BKCPR = pixel_BKPR[:, :, None] + plane_B1C11
    runs = image_B3HW.reshape(-1, run).index_select(0, index_BKCPR.reshape(-1))
    tiles = runs.view(*index_BKCPR.shape, run).mul_(inside_BK1PR1)
    return tiles.view(batch, ids_BK.shape[1], channels, tile + 2 * halo, tile + 2 * halo)


@torch.library.custom_op("apex::tile_pack", mutates_args=())
def _tile_pack_op(image: Tensor, ids: Tensor, levels: Tensor, tile: int, halo: int) -> Tensor:
    return tile_pack_formula(image, ids, tile, halo)


@_tile_pack_op.register_fake
def _(image: Tensor, ids: Tensor, levels: Tensor, tile: int, halo: int) -> Tensor:
    side = tile + 2 * halo
    return image.new_empty(image.shape[0], ids.shape[1], image.shape[1], side, side)
