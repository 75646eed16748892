"""No object costs much more than the others: what a label costs beyond a multiple of the running median is damped.

A wrong label is one that the network keeps disagreeing with, and its gradient is among the largest. Damped, it counts as much as
one at the limit: the loss is scaled down, not cut off, so that a hard object that is right is still learned, only more slowly.

Shapes: B images, G padded objects per image, A anchors, X compared masks.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from apex_train.config import LossConfig
from apex_train.data.loader import Batch
from apex_train.losses.compute import Matcher, branch_losses, shape_losses
from apex_train.losses.mask_terms import mask_losses
from apex_train.model.detector import HeadOutputs


@torch.no_grad()
def object_costs(heads: HeadOutputs, targets: Batch, matcher: Matcher, config: LossConfig) -> Tensor:
    """float32 [B,G]: what each object costs on its own anchors, all terms weighted as ``config`` says, its own weight left out.

    The rows of padding are 0, as are objects without an anchor. The background is nobody's.
    """
    even = replace(targets, weights=torch.ones_like(targets.weights))
    costs_BG = torch.zeros_like(targets.weights)
    for loss_BA, assignment in branch_losses(heads, even, matcher, config):
        mine_BA = torch.where(assignment.positive_BA, loss_BA, torch.zeros_like(loss_BA))
        costs_BG.scatter_add_(1, assignment.object_BA.clamp(min=0), mine_BA)
    shape_BA = shape_losses(heads, even, matcher, config)
    costs_BG.scatter_add_(1, matcher.many.object_BA.clamp(min=0), shape_BA)
    compared = mask_losses(heads, even, matcher.many, config)
    if compared is not None:
        of_mask_X = torch.stack(list(compared.losses.values())).sum(0)
        costs_BG.index_put_((compared.image, compared.item), of_mask_X, accumulate=True)
    return costs_BG


class CostLimit:
    """The running median of what an object costs, and the limit at ``multiple`` times it. Its state is part of a checkpoint.

    The median is followed by the share of objects that cost more than it (stochastic approximation, Robbins and Monro 1951),
    which adds up over micro-batches and processes, as a median would not.
    """

    RATE = 0.2
    names = ("object_cost", "above_median", "damped")

    def __init__(self, multiple: float) -> None:
        self.multiple, self.median = multiple, 0.0

    def damp(self, costs_BG: Tensor, targets: Batch, objects: int) -> tuple[Batch, Tensor]:
        """The targets with the weights of objects beyond the limit scaled down to it; and float32 [3], by ``names``: mean cost,
        and shares of the ``objects`` of the effective batch that cost more than the median and than the limit. Before the first
        update there is no limit. A cost that is not finite stays so in the weight.
        """
        limit = self.multiple * self.median if self.median else math.inf
        beyond_BG = costs_BG > limit
        factor_BG = torch.where(costs_BG <= limit, 1.0, limit / costs_BG)
        counts = [costs_BG.sum(), (costs_BG > self.median).sum(), beyond_BG.sum()]
        figures = torch.stack([each.float() for each in counts]) / max(1, objects)
        return replace(targets, weights=targets.weights * factor_BG), figures

    def update(self, figures: dict[str, float]) -> None:
        """One step's figures, of the whole effective batch. One whose objects cost nothing, for there are none, says nothing."""
        if not figures["object_cost"]:
            return
        if self.median:
            self.median *= math.exp(self.RATE * (figures["above_median"] - 0.5))
        else:  # the first objects that were seen
            self.median = figures["object_cost"]

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"median": self.median}

    def restore(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.median = float(state["median"])
