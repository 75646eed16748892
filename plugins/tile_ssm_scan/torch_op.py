"""TileSSMScan in torch: the differentiable formula, and the custom op that stands for it while exporting.

The selective scan of Mamba-2 (Dao and Gu 2024, "Transformers are SSMs") in its masked-matrix form: exact, no loop over tokens.
Suffixes: B batch, K tokens (tiles), H heads, P channels per head, S state size.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from apex_plugins.kernels.torch_face import by_kernel
from apex_plugins.tile_ssm_scan.launch import MAX_STATES
from apex_plugins.tile_ssm_scan.torch_cuda import OP, tile_ssm_scan_both_kernel, tile_ssm_scan_kernel

Parameters = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # dt [B,K,H], A [H], Bm and Cm [B,K,S], D [H] of one direction


def tile_ssm_scan(
    x_BKHP: Tensor, dt_BKH: Tensor, A_H: Tensor, Bm_BKS: Tensor, Cm_BKS: Tensor, D_H: Tensor, reverse: bool
) -> Tensor:
    """Scan the tokens: h_k = a_k h_(k-1) + dt_k B_k x_k, y_k = C_k h_k + D x_k with a_k = exp(-exp(A) dt_k); y is [B,K,H,P].

    dt must be >= 0 (a softplus). ``reverse`` runs from the last token to the first. Computed in float32 at least, whatever
    autocast says, and returned in the type of x. While exporting, the call becomes one ``apex::TileSSMScan`` node; on a GPU the
    kernel runs where it can (``torch_cuda.py``), in time linear in K.
    """
    if torch.compiler.is_exporting():
        return torch.ops.apex.tile_ssm_scan(x_BKHP, dt_BKH, A_H, Bm_BKS, Cm_BKS, D_H, reverse)
    arguments = x_BKHP, dt_BKH, A_H, Bm_BKS, Cm_BKS, D_H, reverse
    if Bm_BKS.shape[2] > MAX_STATES:
        return tile_ssm_scan_formula(*arguments)
    return cast(Tensor, by_kernel(OP, tile_ssm_scan_kernel, tile_ssm_scan_formula, *arguments))


def tile_ssm_scan_both(x_BKHP: Tensor, forward: Parameters, backward: Parameters) -> tuple[Tensor, Tensor]:
    """(y, y_back): one scan in each direction, with parameters of its own; the same as two calls, and one launch on a GPU."""
    if torch.compiler.is_exporting() or forward[2].shape[2] != backward[2].shape[2] or forward[2].shape[2] > MAX_STATES:
        return tile_ssm_scan(x_BKHP, *forward, reverse=False), tile_ssm_scan(x_BKHP, *backward, reverse=True)
    both = by_kernel(OP, tile_ssm_scan_both_kernel, _both_formula, x_BKHP, *forward, *backward)
    return cast(tuple[Tensor, Tensor], both)


def _both_formula(x_BKHP: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
    dt, a, bm, cm, d, dt_back, a_back, bm_back, cm_back, d_back = parameters
    y = tile_ssm_scan_formula(x_BKHP, dt, a, bm, cm, d, reverse=False)
    return y, tile_ssm_scan_formula(x_BKHP, dt_back, a_back, bm_back, cm_back, d_back, reverse=True)


def tile_ssm_scan_formula(
    x_BKHP: Tensor, dt_BKH: Tensor, A_H: Tensor, Bm_BKS: Tensor, Cm_BKS: Tensor, D_H: Tensor, reverse: bool
) -> Tensor:
    """y = (L * (C B^T) * dt) x + D x, with L the lower-triangular (upper when reversed) matrix of products of decays."""
    with torch.autocast(x_BKHP.device.type, enabled=False):
        kind = torch.promote_types(x_BKHP.dtype, torch.float32)
        x_BHKP, dt_BHK = x_BKHP.to(kind).transpose(1, 2), dt_BKH.to(kind).transpose(1, 2)
        decay_BHKK = _decay_matrix(-torch.exp(A_H.to(kind))[:, None] * dt_BHK, reverse)
        mix_BKK = Cm_BKS.to(kind) @ Bm_BKS.to(kind).transpose(1, 2)
        y_BHKP = (decay_BHKK * mix_BKK[:, None] * dt_BHK[:, :, None, :]) @ x_BHKP
        return (y_BHKP + D_H.to(kind)[:, None, None] * x_BHKP).transpose(1, 2).to(x_BKHP.dtype)


def _decay_matrix(log_decay_BHK: Tensor, reverse: bool) -> Tensor:
    """[B,H,K,K]: entry (k, j) is the product of the decays between token j and token k, 0 where j comes later in the scan."""
    tokens = torch.arange(log_decay_BHK.shape[-1], device=log_decay_BHK.device)
    if reverse:
        total_BHK = log_decay_BHK.flip(-1).cumsum(-1).flip(-1)
        earlier_KK = tokens[:, None] <= tokens[None, :]
    else:
        total_BHK = log_decay_BHK.cumsum(-1)
        earlier_KK = tokens[:, None] >= tokens[None, :]
    difference_BHKK = total_BHK[..., :, None] - total_BHK[..., None, :]
    # Masked before the exponential: where it is 0 the difference is positive and could overflow, and inf * 0 has no gradient.
    return torch.exp(difference_BHKK.masked_fill(~earlier_KK, 0.0)) * earlier_KK


@torch.library.custom_op("apex::tile_ssm_scan", mutates_args=())
def _tile_ssm_scan_op(x: Tensor, dt: Tensor, A: Tensor, Bm: Tensor, Cm: Tensor, D: Tensor, reverse: bool) -> Tensor:
    return tile_ssm_scan_formula(x, dt, A, Bm, Cm, D, reverse).contiguous()


@_tile_ssm_scan_op.register_fake
def _(x: Tensor, dt: Tensor, A: Tensor, Bm: Tensor, Cm: Tensor, D: Tensor, reverse: bool) -> Tensor:
    return torch.empty_like(x)
