"""Which K tiles get the close look: the same integers on every backend.

The key of a tile is ``round(128 * (clip(U, -8, 8) + clip(bonus, -24, 24))) * N2 - id``, N2 the next power of two >= N. The first
factor q lies in -4096..4096, so utilities are compared in steps of 1/128 and equal ones by id, lower first. A bonus of +24 lifts
a tile above every tile without one, -24 sinks it below.

Exactness in float32 (integers up to 2^24): for N <= 2048 every key is exact, so no two are equal. For N2 = 4096 (N up to 3840)
it holds for q >= -4095; only tiles that are forbidden *and* at the lowest utility (q = -4096, key = -2^24 - id) may be rounded
to the same key. They come last in any case, and ties there fall to the lower id, here as in ONNX TopK.
"""

from __future__ import annotations

import numpy as np

MAX_UTILITY = 8.0
MAX_BONUS = 24.0
STEPS = 128.0  # per unit of utility


def selection_keys(utilities_BN: np.ndarray, bonus_BN: np.ndarray) -> np.ndarray:
    """float32 [B,N] from utilities and bonus, float32 [B,N] each. Halves are rounded to even, as in ONNX Round."""
    tiles = utilities_BN.shape[1]
    squared_up = np.float32(1 << max(tiles - 1, 0).bit_length())
    utility = np.clip(utilities_BN.astype(np.float32), -MAX_UTILITY, MAX_UTILITY)
    bonus = np.clip(bonus_BN.astype(np.float32), -MAX_BONUS, MAX_BONUS)
    steps = np.rint(np.float32(STEPS) * (utility + bonus))
    return np.asarray(steps * squared_up - np.arange(tiles, dtype=np.float32), np.float32)


def select_tiles(keys_BN: np.ndarray, k: int, rank_N: np.ndarray) -> np.ndarray:
    """int64 [B,K]: the ids of the K largest keys of each row, along the Hilbert curve given by ``rank_N`` (``hilbert_rank``).

    Raises ValueError when K is not in 1..N.
    """
    if not 1 <= k <= keys_BN.shape[1]:
        raise ValueError(f"K = {k} is not in 1..{keys_BN.shape[1]}")
    chosen_BK = np.argsort(-keys_BN, axis=1, kind="stable")[:, :k]
    order_BK = np.argsort(rank_N[chosen_BK], axis=1)
    return np.take_along_axis(chosen_BK, order_BK, axis=1).astype(np.int64)
