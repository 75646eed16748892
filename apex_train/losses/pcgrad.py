"""PCGrad (Yu et al. 2020): of each task's gradient, what goes against another task's is taken out, then they are added up.

Every projection is onto the original gradient of the other task, so each result stays a combination of the originals, and all
that is needed of the gradients are their inner products: the coefficients are worked out on a matrix of tasks by tasks in
float64, and the gradients are touched twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Projection:
    """``gradients``: the sum over tasks, a tensor per parameter. ``conflicts`` of ``pairs`` of tasks that both have a gradient
    pointed against each other before."""

    gradients: list[Tensor]
    conflicts: int
    pairs: int

    @property
    def rate(self) -> float:
        """Share of pairs in conflict, 0 where there is no pair."""
        return self.conflicts / max(1, self.pairs)


def draw_orders(tasks: int, rng: np.random.Generator) -> list[list[int]]:
    """For every task the order in which it meets the others."""
    return [[int(other) for other in rng.permutation(tasks) if other != task] for task in range(tasks)]


def project_conflicts(gradients: Sequence[Sequence[Tensor]], orders: Sequence[Sequence[int]]) -> Projection:
    """``gradients[task][parameter]``, changed nowhere; ``orders`` as ``draw_orders`` gives them.

    The results are added up, not averaged: without conflicts they are the plain gradient of the total. A gradient that is not
    finite stays so.
    """
    products = inner_products(gradients)
    factors = coefficients(products, orders).sum(0)
    merged = [sum_of(tensors, factors) for tensors in zip(*gradients, strict=True)]
    live = np.diag(products) > 0
    upper = np.triu(live[:, None] & live[None, :], 1)
    return Projection(merged, int((upper & (products < 0)).sum()), int(upper.sum()))


def inner_products(gradients: Sequence[Sequence[Tensor]]) -> np.ndarray:
    """float64 [tasks,tasks]: inner products over all parameters."""
    total: Tensor | None = None
    for tensors in zip(*gradients, strict=True):
        flat = torch.stack([tensor.detach().flatten().double() for tensor in tensors])
        total = flat @ flat.T if total is None else total + flat @ flat.T
    return np.zeros((len(gradients), len(gradients))) if total is None else total.cpu().numpy()


def coefficients(products: np.ndarray, orders: Sequence[Sequence[int]]) -> np.ndarray:
    """float64 [tasks,tasks]: row i holds the weights of the original gradients in the projected gradient of task i."""
    weights = np.eye(len(products))
    for row, order in zip(weights, orders, strict=True):
        for other in order:
            along = float(row @ products[:, other])
            if along < 0 and products[other, other] > 0:
                row[other] -= along / products[other, other]
    return weights


def sum_of(tensors: Sequence[Tensor], factors: np.ndarray) -> Tensor:
    """The weighted sum of tensors of one shape."""
    total = tensors[0] * float(factors[0])
    for tensor, factor in zip(tensors[1:], factors[1:], strict=True):
        total = total + tensor * float(factor)
    return total
