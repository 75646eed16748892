"""The router: scores every tile from the peripheral features and picks exactly K of them, the same way on every backend.

The arithmetic of the choice is DESIGN rule 3; its NumPy twin is ``apex_runtime.routing.selection``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UTILITY_LIMIT = 8.0
BONUS_LIMIT = 24.0
KEY_STEPS = 128.0


class Router(nn.Module):
    """Peripheral map [B,C,H/8,W/8] -> utility [B,N], N tiles row by row.

    Its input is detached: what the router learns must not bend the features that the heads live on.
    """

    def __init__(self, channels: int, cells: int, hidden: int = 32) -> None:
        super().__init__()
        self.cells = cells
        self.score = nn.Sequential(nn.Linear(2 * channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, 1))

    def forward(self, base_BChw: Tensor) -> Tensor:
        base = base_BChw.detach().float()
        mean = F.avg_pool2d(base, self.cells)
        peak = F.max_pool2d(base, self.cells)
        statistics = torch.cat([mean, peak], dim=1).flatten(2).transpose(1, 2)
        return self.score(statistics).squeeze(-1)


def selection_key(utility_BN: Tensor, bonus_BN: Tensor) -> Tensor:
    """Integer-valued float32 keys [B,N] without ties: round(128 * (clip(U) + clip(bonus))) * N2 - id."""
    count = utility_BN.shape[1]
    power = 1 << max(0, count - 1).bit_length()
    total = utility_BN.clamp(-UTILITY_LIMIT, UTILITY_LIMIT) + bonus_BN.clamp(-BONUS_LIMIT, BONUS_LIMIT)
    ids = torch.arange(count, device=utility_BN.device, dtype=torch.float32)
    return torch.round(KEY_STEPS * total.float()) * power - ids


def select_tiles(key_BN: Tensor, tiles: int, rank_N: Tensor) -> Tensor:
    """Ids [B,K] of the K largest keys, in Hilbert order. ``rank_N`` is each tile's place on the curve, float32."""
    chosen = torch.topk(key_BN, tiles, dim=1).indices
    order = torch.topk(-rank_N[chosen], tiles, dim=1).indices
    return torch.gather(chosen, 1, order)
