"""TileUnpackFusion on CUDA tensors by its kernels, on torch's current stream.

The kernel for a map of its own ran on a GPU, launched alone; through this binding it has not yet: unproven.
"""

from __future__ import annotations

import torch
from torch import Tensor

from apex_plugins.kernels.torch_face import TYPES, run
from apex_plugins.tile_unpack_fusion.launch import launch

OP = "tile_unpack_fusion"


def tile_unpack_fusion_kernel(
    base_BChw: Tensor, tiles_BKCnn: Tensor, ids_BK: Tensor, alpha_BK1nn: Tensor, tile: int, in_place: bool = False
) -> Tensor:
    """The map [B,C,h,w] with the tiles blended in: one of its own, or ``base_BChw`` itself, contiguous then, when ``in_place``.

    All of one type. Raises ValueError for what does not fit, KernelError where the kernel cannot run.
    """
    b, c, h, w = base_BChw.shape
    cells = tile // 8
    if tile % 8 or h % cells or w % cells:
        raise ValueError(f"tile_unpack_fusion: map {h}x{w} is not a grid of tiles of {tile} / 8 cells")
    if in_place and not base_BChw.is_contiguous():
        raise ValueError("tile_unpack_fusion: only a contiguous map can be changed in place")
    base, seen, ids, alpha = (item.contiguous() for item in (base_BChw, tiles_BKCnn, ids_BK, alpha_BK1nn))
    merged = base if in_place else torch.empty_like(base)
    what = launch(
        base.data_ptr(),
        seen.data_ptr(),
        ids.data_ptr(),
        0,
        alpha.data_ptr(),
        merged.data_ptr(),
        kind=TYPES[merged.dtype],
        shape=(b, c, h, w),
        tiles=ids.shape[1],
        cells=cells,
    )
    run(OP, [what], merged.device)
    return merged
