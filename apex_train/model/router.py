"""The router: scores every tile by what the heads find in it from afar and picks exactly K, the same way on every backend.

The arithmetic of the choice is DESIGN rule 3; its NumPy twin is ``apex_runtime.routing.selection``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UTILITY_LIMIT = 8.0
BONUS_LIMIT = 24.0
KEY_STEPS = 128.0


FAINT = 1e-3  # evidence below this is none


class Router(nn.Module):
    """Evidence [B,3,H/8,W/8] -> utility [B,N], N tiles row by row; in float32 whatever the caller is at.

    Three numbers of a tile, on a logarithmic scale, are all that it knows: how much there seems to be, how sure the surest of it
    is, how much of it is in doubt. Fed with the peripheral features themselves it learned the scenes of its training instead.
    """

    def __init__(self, cells: int, hidden: int = 32) -> None:
        super().__init__()
        self.cells = cells
        self.score = nn.Sequential(nn.Linear(3, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, 1))

    def forward(self, evidence_B3hw: Tensor) -> Tensor:
        amount, surest, doubt = evidence_B3hw.float().split(1, dim=1)
        mean, peak = (F.avg_pool2d(torch.cat([amount, doubt], 1), self.cells), F.max_pool2d(surest, self.cells))
        statistics = torch.log(torch.cat([mean, peak], 1) + FAINT).flatten(2).transpose(1, 2)
        centred = 0.5 * statistics + 2.0  # from ln(FAINT) to 0: about -1.5 to 2
        if torch.is_autocast_enabled(centred.device.type):
            with torch.autocast(centred.device.type, enabled=False):
                return self.score(centred).squeeze(-1)
        return self.score(centred).squeeze(-1)


def evidence_map(logits: Sequence[Tensor]) -> Tensor:
    """Class logits [B,nc,h,w] at strides 8, 16, 32 -> float32 [B,3,h,w] at stride 8: the objects that are expected in a cell, the
    surest of them, and their doubt p (1 - p); a coarse cell shares what it expects among those that it covers."""
    scores = [item.float().amax(1, keepdim=True).sigmoid() for item in logits]
    spread = [F.interpolate(p, scale_factor=float(2**n), mode="nearest") if n else p for n, p in enumerate(scores)]
    shares = [p * 0.25**n for n, p in enumerate(spread)]
    amount = torch.stack(shares).sum(0)
    doubt = torch.stack([share * (1 - p) for share, p in zip(shares, spread, strict=True)]).sum(0)
    return torch.cat([amount, torch.stack(spread).amax(0), doubt], dim=1)


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
