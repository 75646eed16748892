"""TileSSMScan, version 1: what the op means, in NumPy: the plain recurrence of a selective state space (Mamba-2)."""

from __future__ import annotations

import numpy as np

from apex_plugins.spec import OpSpec

SPEC = OpSpec(
    name="TileSSMScan",
    inputs={"x": "float", "dt": "float", "A": "float", "Bm": "float", "Cm": "float", "D": "float"},
    outputs={"y": "float"},
    attributes={"reverse": int},
)


def output_shape(x: tuple[int, ...]) -> tuple[int, ...]:
    """y has the shape of x, [B,K,H,P]."""
    return x


def tile_ssm_scan(
    x_BKHP: np.ndarray,
    dt_BKH: np.ndarray,
    A_H: np.ndarray,
    Bm_BKS: np.ndarray,
    Cm_BKS: np.ndarray,
    D_H: np.ndarray,
    *,
    reverse: int,
) -> np.ndarray:
    """h_k = a_k h_(k-1) + dt_k B_k x_k and y_k = C_k h_k + D x_k, with a_k = exp(-exp(A) dt_k) and h before the first token 0.

    ``reverse`` = 1 runs from the last token to the first. dt must be >= 0, so that a_k lies in (0, 1]. Else ValueError.
    """
    _check(x_BKHP, dt_BKH, A_H, Bm_BKS, Cm_BKS, D_H, reverse)
    batch, count, heads, channels = x_BKHP.shape
    decay_BKH = np.exp(-np.exp(A_H) * dt_BKH)
    state_BHSP = np.zeros((batch, heads, Bm_BKS.shape[2], channels), x_BKHP.dtype)
    y_BKHP = np.empty_like(x_BKHP)
    for k in range(count - 1, -1, -1) if reverse else range(count):
        drive_BHSP = dt_BKH[:, k, :, None, None] * Bm_BKS[:, k, None, :, None] * x_BKHP[:, k, :, None, :]
        state_BHSP = decay_BKH[:, k, :, None, None] * state_BHSP + drive_BHSP
        y_BKHP[:, k] = np.einsum("bs,bhsp->bhp", Cm_BKS[:, k], state_BHSP) + D_H[:, None] * x_BKHP[:, k]
    return y_BKHP


def _check(x: np.ndarray, dt: np.ndarray, A: np.ndarray, Bm: np.ndarray, Cm: np.ndarray, D: np.ndarray, reverse: int) -> None:
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(f"TileSSMScan: x must be [B,K,H,P] and not empty, got shape {x.shape}")
    batch, count, heads, _ = x.shape
    for name, value, wanted in (("dt", dt, (batch, count, heads)), ("A", A, (heads,)), ("D", D, (heads,))):
        if value.shape != wanted:
            raise ValueError(f"TileSSMScan: {name} must have shape {wanted}, got {value.shape}")
    if Bm.ndim != 3 or Bm.shape[:2] != (batch, count) or Bm.shape[2] == 0 or Cm.shape != Bm.shape:
        raise ValueError(f"TileSSMScan: Bm and Cm must both be [{batch},{count},S], got {Bm.shape} and {Cm.shape}")
    if not (dt >= 0).all():
        raise ValueError("TileSSMScan: dt must be >= 0 (the output of a softplus)")
    if reverse not in (0, 1):
        raise ValueError(f"TileSSMScan: reverse must be 0 or 1, got {reverse!r}")
