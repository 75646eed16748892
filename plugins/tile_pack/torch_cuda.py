"""TilePack on CUDA tensors by its kernel, on torch's current stream."""

from __future__ import annotations

import torch
from torch import Tensor

from apex_plugins.kernels.torch_face import TYPES, run
from apex_plugins.tile_pack.launch import Normalisation, launch

OP = "tile_pack"


def tile_pack_kernel(
    image: Tensor,
    ids_BK: Tensor,
    tile: int,
    halo: int,
    dtype: torch.dtype | None = None,
    scale: float = 1.0,
    normalisation: Normalisation | None = None,
) -> Tensor:
    """The tiles [B,K,C,P,P] in ``dtype``, that of the image unless told: a float image also as float16 and float8_e4m3fn.

    The image is [B,C,H,W], or uint8 [B,H,W,3] with a ``normalisation``; outside it is 0 after that. ``scale``: what a result of
    8 bits is to be multiplied by to be read. Raises ValueError for types without a kernel, KernelError where it cannot run.
    """
    batch, count = ids_BK.shape
    shape = image.shape if normalisation is None else torch.Size([image.shape[n] for n in (0, 3, 1, 2)])
    if shape[2] % tile or shape[3] % tile:
        raise ValueError(f"tile_pack: image {shape[2]}x{shape[3]} is not a multiple of tile {tile}")
    image, ids_BK, side = image.contiguous(), ids_BK.contiguous(), tile + 2 * halo
    out = torch.empty((batch, count, shape[1], side, side), dtype=dtype or image.dtype, device=image.device)
    addresses = (image.data_ptr(), ids_BK.data_ptr(), 0, out.data_ptr())
    b, c, h, w = shape
    what = launch(
        *addresses,
        types=(TYPES[image.dtype], TYPES[out.dtype]),
        shape=(b, c, h, w),
        tiles=count,
        tile=tile,
        halo=halo,
        normalisation=normalisation,
        scale=scale,
    )
    run(OP, [what], image.device)
    return out
