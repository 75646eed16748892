"""The foveal stream: a close look at the chosen tiles only, and how what it saw enters the whole-image map.

Shapes: B images, K chosen tiles, C feature channels, T = t + 2h pixels of a tile with its halo, n = t / 8 cells of a tile.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from apex_plugins.tile_ssm_scan.torch_op import Parameters, tile_ssm_scan_both
from apex_train.model.blocks import ConvNorm, ResidualBlock

STRIDE = 8


class FovealStream(nn.Module):
    """Tiles with halo [B*K,3,T,T] -> features [B*K,C,n,n] at stride 8, the halo cropped away."""

    def __init__(self, widths: tuple[int, int, int], blocks: tuple[int, int], features: int, halo: int) -> None:
        super().__init__()
        self.margin = halo // STRIDE
        self.stem = nn.Sequential(ConvNorm(3, widths[0], stride=2), ConvNorm(widths[0], widths[1], stride=2))
        self.middle = nn.Sequential(*(ResidualBlock(widths[1]) for _ in range(blocks[0])))
        self.down = ConvNorm(widths[1], widths[2], stride=2)
        self.late = nn.Sequential(*(ResidualBlock(widths[2]) for _ in range(blocks[1])))
        self.project = nn.Conv2d(widths[2], features, 1)

    def forward(self, tiles_X3TT: Tensor) -> Tensor:
        x = self.late(self.down(self.middle(self.stem(tiles_X3TT))))
        m = self.margin
        if m:
            x = x[:, :, m:-m, m:-m]
        return self.project(x)


class TileContext(nn.Module):
    """Lets the chosen tiles tell each other what they saw: one token per tile, a selective scan along the Hilbert curve in both
    directions (Mamba-2's SSD form, Dao & Gu 2024), and a feature-wise modulation (FiLM, Perez et al. 2018) of every tile.

    Tile features [B,K,C,n,n] -> the same shape.
    """

    def __init__(self, channels: int, heads: int, state: int) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels do not divide into {heads} scan heads")
        self.heads, self.state = heads, state
        self.norm = nn.LayerNorm(channels)
        self.value = nn.Linear(channels, channels)
        self.scans = nn.ModuleList(nn.Linear(channels, heads + 2 * state) for _ in range(2))
        self.log_rate = nn.Parameter(torch.zeros(2, heads))
        self.skip = nn.Parameter(torch.ones(2, heads))
        self.merge = nn.Linear(channels, channels)
        self.film = nn.Linear(channels, 2 * channels)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def _of_direction(self, token_BKC: Tensor, direction: int) -> Parameters:
        dt, b, c = self.scans[direction](token_BKC).float().split([self.heads, self.state, self.state], dim=-1)
        return F.softplus(dt), self.log_rate[direction].float(), b, c, self.skip[direction].float()

    def modulation(self, mean_BKC: Tensor) -> tuple[Tensor, Tensor]:
        """Per-tile features, averaged over their cells and in Hilbert order -> (scale, shift), [B,K,C] each."""
        token_BKC = self.norm(mean_BKC)
        value_BKHP = self.value(token_BKC).unflatten(-1, (self.heads, -1))
        parameters = self._of_direction(token_BKC, 0), self._of_direction(token_BKC, 1)
        forward, backward = tile_ssm_scan_both(value_BKHP.float(), *parameters)
        share = torch.sigmoid(self.merge(token_BKC))
        scale, shift = self.film(share * forward.flatten(2) + (1 - share) * backward.flatten(2)).chunk(2, dim=-1)
        return 1 + torch.tanh(scale), shift

    def forward(self, tiles_BKCnn: Tensor) -> Tensor:
        scale, shift = self.modulation(tiles_BKCnn.mean((3, 4)))
        return tiles_BKCnn * scale[..., None, None] + shift[..., None, None]


class FusionGate(nn.Module):
    """How much of the close look enters each cell: detail [B,K,C,n,n] -> alpha [B,K,1,n,n] in (0,1), starting near 1.

    The start matters: a gate that begins half shut lets the heads learn to live on the peripheral stream alone (DESIGN rule 10).
    """

    OPEN = 3.0

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Conv2d(channels, 1, 1)
        nn.init.zeros_(self.score.weight)
        assert self.score.bias is not None
        nn.init.constant_(self.score.bias, self.OPEN)

    def forward(self, detail_BKCnn: Tensor) -> Tensor:
        score = self.score(detail_BKCnn.flatten(0, 1))
        return torch.sigmoid(score).unflatten(0, detail_BKCnn.shape[:2])
