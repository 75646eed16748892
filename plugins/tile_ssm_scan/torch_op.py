"""TileSSMScan in torch: the differentiable formula, and the custom op that stands for it while exporting.

The selective scan of Mamba-2 (Dao and Gu 2024, "Transformers are SSMs") in its masked-matrix form: exact, no loop over tokens.
Suffixes: B batch, K tokens (tiles), H heads, P channels per head, S state size.
"""

from __future__ import annotations

import torch
from torch import Tensor


def tile_ssm_scan(
    x_BKHP: Tensor, dt_BKH: Tensor, A_H: Tensor, Bm_BKS: Tensor, Cm_BKS: Tensor, D_H: Tensor, reverse: bool
) -> Tensor:
    """Scan the tokens: h_k = a_k h_(k-1) + dt_k B_k x_k, y_k = C_k h_k + D x_k with a_k = exp(-exp(A) dt_k); y is [B,K,H,P].

    dt must be >= 0 (a softplus). ``reverse`` runs from the last token to the first. Computed in float32 at least, whatever
    autocast says, and returned in the type of x. While exporting, the call becomes one ``apex::TileSSMScan`` node.
    """
    if torch.compiler.is_exporting():
        return torch.ops.apex.tile_ssm_scan(x_BKHP, dt_BKH, A_H, Bm_BKS, Cm_BKS, D_H, reverse)
    return tile_ssm_scan_formula(x_BKHP, dt_BKH, A_H, Bm_BKS, Cm_BKS, D_H, reverse)


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
