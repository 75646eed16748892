"""What a step tells about the routing: what the router means to spend and spends, and whether it knows what is worth a look."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from apex_train.config import FitConfig
from apex_train.losses.budget import TileCost, excess_cost, expected_cost
from apex_train.losses.oracle import OracleLabels
from apex_train.losses.ranking import rank_correlation
from apex_train.model.detector import ApexDetector, Outputs
from apex_train.model.info import count_gflops


class RoutingFigures:
    """The figures of a batch. Shares of an effective batch add up to those of the whole.

    ``alpha``: the fusion gate. ``utilisation``: share of the tiles that the router thinks worth their cost (p > 0.5). ``entropy``
    of p, in bits per tile: 1 is undecided. ``expected_gflops`` (of level 0) and ``spent_gflops`` (of all) per image, the base
    included; ``budget_excess``: what is expected for tiles over what ``routing.share`` of them costs, minus 1. ``oracle_rank``:
    Spearman's correlation, per image, of the utilities with the gains of the tiles that the oracle was asked about.
    """

    def __init__(self, model: ApexDetector, config: FitConfig) -> None:
        crop = config.train.crop
        gflops = count_gflops(model, crop, crop)
        self._base, self._share = gflops.base, config.routing.share
        self._per_tile = gflops.per_tile
        self.cost = TileCost(gflops.per_tile or 1.0)  # a ratio needs a cost, which the tile of a picture of one tile has not
        figures = "alpha", "utilisation", "entropy", "expected_gflops", "spent_gflops", "budget_excess"
        self.names = (*figures, "oracle_rank") if config.loss.oracle else figures

    def of(self, outputs: Outputs, share: float, labels: Sequence[OracleLabels]) -> Tensor:
        """float32 [len(names)] of a part of an effective batch that has ``share`` of its images."""
        utilities_BN = outputs.utilities.detach().float()
        figures = [
            outputs.alpha.detach().float().mean(),
            (utilities_BN > 0).float().mean(),
            _entropy(utilities_BN),
            self._base + expected_cost(utilities_BN, TileCost(self._per_tile)).mean(),
            utilities_BN.new_tensor(self._base + sum(level.tile_ids.shape[1] for level in outputs.levels) * self._per_tile),
            excess_cost(utilities_BN, self.cost, self._share),
        ]
        found = share * torch.stack(figures)
        if "oracle_rank" not in self.names:
            return found
        return torch.cat([found, _rank(outputs, labels).view(1)])


def _entropy(utilities_BN: Tensor) -> Tensor:
    """The mean entropy in bits of p = sigmoid(U): p softplus(-U) + (1 - p) softplus(U), which no U makes infinite times zero."""
    p = torch.sigmoid(utilities_BN)
    return (p * F.softplus(-utilities_BN) + (1 - p) * F.softplus(utilities_BN)).mean() / torch.log(utilities_BN.new_tensor(2.0))


def _rank(outputs: Outputs, labels: Sequence[OracleLabels]) -> Tensor:
    """The mean correlation times the labels' share; a side that is constant says nothing, which counts as 0."""
    total = outputs.utilities.new_zeros((), dtype=torch.float32)
    for level, of_level in zip(outputs.levels, labels, strict=False):
        utilities_RM = torch.gather(level.utilities.detach()[of_level.rows], 1, of_level.ids)
        found_R = torch.nan_to_num(rank_correlation(utilities_RM, of_level.gains))
        total = total + of_level.share * found_R.mean().float() / len(labels)
    return total
