"""The exponential moving average of the weights: what is evaluated, kept as the best, and exported."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


class WeightAverage(Generic[Model]):
    """Averages every floating weight and buffer; the decay ramps up so that the first steps do not linger."""

    def __init__(self, model: Model, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move a little towards ``model``."""
        self.steps += 1
        share = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        moving = [(ours, theirs) for ours, theirs in pairs if ours.is_floating_point()]
        # All weights in one call: on a GPU a call per weight takes longer than a small network's arithmetic.
        torch._foreach_lerp_([ours for ours, _ in moving], [theirs for _, theirs in moving], share)
        for ours, theirs in pairs:
            if not ours.is_floating_point():
                ours.copy_(theirs)
