"""TileUnpackFusion in torch: the differentiable formula, and the custom op that stands for it while exporting.

Suffixes: B batch, K selected tiles, N tiles of the grid, C channels, h and w map cells, n = tile / 8 cells per tile side.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from apex_plugins.kernels.torch_face import by_kernel
from apex_plugins.tile_unpack_fusion.torch_cuda import OP, tile_unpack_fusion_kernel

STRIDE = 8  # input pixels per cell of the map


def tile_unpack_fusion(
    base_BChw: Tensor, tiles_BKCnn: Tensor, ids_BK: Tensor, levels_BK: Tensor, alpha_BK1nn: Tensor, tile: int
) -> Tensor:
    """Blend tile features into the stride-8 map: base + alpha * (tiles - base) on the selected tiles, base elsewhere; [B,C,h,w].

    ids_BK are int64, distinct within an image, row-major on the grid of w * 8 / tile columns; levels_BK is the level that the
    call is of and changes nothing (see ``reference.py``, which checks values). Gradient flows to base, tiles and alpha. The
    result has the wider type of base and tiles. While exporting, the call becomes one ``apex::TileUnpackFusion`` node;
    on a GPU the kernel runs where it can (``torch_cuda.py``).
    """
    if torch.compiler.is_exporting():
        return torch.ops.apex.tile_unpack_fusion(base_BChw, tiles_BKCnn, ids_BK, levels_BK, alpha_BK1nn, tile)
    kind = torch.promote_types(base_BChw.dtype, tiles_BKCnn.dtype)
    inputs = base_BChw.to(kind), tiles_BKCnn.to(kind), ids_BK, alpha_BK1nn.to(kind), tile
    return cast(Tensor, by_kernel(OP, tile_unpack_fusion_kernel, tile_unpack_fusion_formula, *inputs))


def tile_unpack_fusion_formula(base_BChw: Tensor, tiles_BKCnn: Tensor, ids_BK: Tensor, alpha_BK1nn: Tensor, tile: int) -> Tensor:
    """Whole tiles as rows: one gather, one blend, one copy back (few long rows make the backward pass cheap on a CPU)."""
    batch, channels, height, width = base_BChw.shape
    n = tile // STRIDE
    if tile % STRIDE or height % n or width % n:
        raise ValueError(f"tile_unpack_fusion: map {height}x{width} is not a grid of tiles of {tile} / {STRIDE} cells")
    rows, cols = height // n, width // n
    kind = torch.promote_types(base_BChw.dtype, tiles_BKCnn.dtype)
    grid = base_BChw.to(kind).reshape(batch, channels, rows, n, cols, n).permute(0, 2, 4, 1, 3, 5)
    base_RCnn = grid.reshape(batch * rows * cols, channels, n, n)
    first_B1 = torch.arange(batch, device=ids_BK.device)[:, None] * (rows * cols)
    index = (ids_BK + first_B1).reshape(-1)
    chosen = base_RCnn.index_select(0, index)
    blended = chosen + alpha_BK1nn.to(kind).flatten(0, 1) * (tiles_BKCnn.to(kind).flatten(0, 1) - chosen)
    merged = base_RCnn.index_copy(0, index, blended).reshape(batch, rows, cols, channels, n, n)
    return merged.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, height, width)


@torch.library.custom_op("apex::tile_unpack_fusion", mutates_args=())
def _tile_unpack_fusion_op(base: Tensor, tiles: Tensor, ids: Tensor, levels: Tensor, alpha: Tensor, tile: int) -> Tensor:
    return tile_unpack_fusion_formula(base, tiles, ids, alpha, tile)


@_tile_unpack_fusion_op.register_fake
def _(base: Tensor, tiles: Tensor, ids: Tensor, levels: Tensor, alpha: Tensor, tile: int) -> Tensor:
    return base.new_empty(base.shape)
