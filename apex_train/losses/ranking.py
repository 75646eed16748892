"""How far two scores put tiles into the same order."""

from __future__ import annotations

import torch
from torch import Tensor


def rank_correlation(a_BN: Tensor, b_BN: Tensor) -> Tensor:
    """Spearman's rank correlation per row [B]; ties share their mean rank, as in the textbook. NaN where one side is constant."""
    a, b = (_ranks(values) for values in (a_BN, b_BN))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))


def _ranks(values_BN: Tensor) -> Tensor:
    """Mean ranks: how many are smaller, and half of those that are equal."""
    values = values_BN.double()
    smaller = (values[:, None, :] < values[:, :, None]).double().sum(2)
    equal = (values[:, None, :] == values[:, :, None]).double().sum(2)
    return torch.add(smaller, equal, alpha=0.5)
