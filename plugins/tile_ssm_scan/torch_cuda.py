"""TileSSMScan on CUDA tensors by its kernels, on torch's current stream."""

from __future__ import annotations

import torch
from torch import Tensor

from apex_plugins.kernels.torch_face import TYPES, run
from apex_plugins.tile_ssm_scan.launch import launch, launch_both

OP = "tile_ssm_scan"


def tile_ssm_scan_kernel(
    x_BKHP: Tensor, dt_BKH: Tensor, A_H: Tensor, Bm_BKS: Tensor, Cm_BKS: Tensor, D_H: Tensor, reverse: bool
) -> Tensor:
    """y [B,K,H,P], one direction. All of one type. ValueError for S beyond the kernel, KernelError where it cannot run."""
    x, *others = (tensor.contiguous() for tensor in (x_BKHP, dt_BKH, A_H, Bm_BKS, Cm_BKS, D_H))
    y = torch.empty_like(x)
    inputs = [x.data_ptr(), *(tensor.data_ptr() for tensor in others)]
    b, k, h, p = x.shape
    what = launch(inputs, y.data_ptr(), kind=TYPES[x.dtype], shape=(b, k, h, p), states=Bm_BKS.shape[2], reverse=reverse)
    run(OP, [what], x.device)
    return y


def tile_ssm_scan_both_kernel(x_BKHP: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Both directions in one launch: dt, A, Bm, Cm, D of the forward scan and then those of the backward scan -> (y, y_back).

    Both have the same S; otherwise as ``tile_ssm_scan_kernel``.
    """
    x, *others = (tensor.contiguous() for tensor in (x_BKHP, *parameters))
    y, y_back = torch.empty_like(x), torch.empty_like(x)
    forward, backward = ([tensor.data_ptr() for tensor in way] for way in (others[:5], others[5:]))
    b, k, h, p = x.shape
    addresses = x.data_ptr(), forward, backward, y.data_ptr(), y_back.data_ptr()
    what = launch_both(*addresses, kind=TYPES[x.dtype], shape=(b, k, h, p), states=others[2].shape[2])
    run(OP, [what], x.device)
    return y, y_back
