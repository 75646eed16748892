"""PCGrad in the training step: one gradient per group of tasks, freed of conflicts on the weights that all tasks share.

The projection is not linear: that of a sum is not the sum of those of its parts. So each group's gradient of the shared trunk is
added up first, over micro-batches and then over processes, and projected once, when it is that of the whole effective batch.
Every process projects the same sums in the same order and gets the same result. All other weights get their plain gradient.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from apex_train.engine.distributed import Peers
from apex_train.losses.mask_terms import MASK_KEYS
from apex_train.losses.pcgrad import Projection, draw_orders, project_conflicts

GROUPS: dict[str, tuple[str, ...]] = {
    "classes": ("cls",),
    "boxes": ("box",),
    "masks": MASK_KEYS,
    "routing": ("oracle", "budget"),
}
TRUNK = ("peripheral.", "foveal.", "neck.")
_STREAM = 0x9C6  # keeps the orders apart from what else is drawn from (seed, step)


class TaskGradients:
    """The gradients of a step, group by group. ``clear``, ``add`` per micro-batch, ``settle``; with other processes ``share``."""

    def __init__(self, model: nn.Module) -> None:
        named = list(model.named_parameters())
        self.trunk = [parameter for name, parameter in named if name.startswith(TRUNK)]
        self.others = [parameter for name, parameter in named if not name.startswith(TRUNK)]
        self.rate = 0.0
        self.clear()

    def clear(self) -> None:
        """Forget the step before."""
        self.sums: list[list[Tensor] | None] = [None] * len(GROUPS)

    def add(self, terms: dict[str, Tensor], scaler: torch.amp.GradScaler) -> None:
        """The gradients of a micro-batch, one backward pass per group that has any. Needs no gradient of ``terms`` afterwards."""
        totals = [torch.stack([terms[key].float() for key in keys]).sum() for keys in GROUPS.values()]
        live = [index for index, total in enumerate(totals) if total.requires_grad]
        for index in live:
            found = torch.autograd.grad(
                scaler.scale(totals[index]), [*self.trunk, *self.others], retain_graph=index != live[-1], allow_unused=True
            )
            shared, own = found[: len(self.trunk)], found[len(self.trunk) :]
            self._accumulate(index, shared)
            for parameter, gradient in zip(self.others, own, strict=True):
                if gradient is not None:
                    _set(parameter, gradient if parameter.grad is None else parameter.grad + gradient)

    def _accumulate(self, index: int, gradients: tuple[Tensor | None, ...]) -> None:
        if all(gradient is None for gradient in gradients):
            return
        before = self.sums[index] or [torch.zeros_like(parameter) for parameter in self.trunk]
        pairs = zip(before, gradients, strict=True)
        self.sums[index] = [total if gradient is None else total + gradient for total, gradient in pairs]

    def settle(self, key: tuple[int, int]) -> None:
        """Project what was added up and make it the trunk's gradient. ``key`` is (seed, step), which decides the orders."""
        sums = [item for item in self.sums if item is not None]
        self._key = key
        if not sums:
            return
        rng = np.random.default_rng([*key, _STREAM])
        result: Projection = project_conflicts(sums, draw_orders(len(sums), rng))
        self.rate = result.rate
        for parameter, gradient in zip(self.trunk, result.gradients, strict=True):
            _set(parameter, gradient)

    def share(self, peers: Peers) -> None:
        """Add everything up over the processes and settle anew. Not part of ``settle``: a process that runs out of memory before
        it gets here must not leave the others waiting."""
        peers.add_gradients(self.others)
        if peers.alone:
            return
        zeros = [torch.zeros_like(parameter) for parameter in self.trunk]
        present = torch.tensor([float(item is not None) for item in self.sums], device=zeros[0].device)
        flat = [tensor.flatten().float() for item in self.sums for tensor in (item or zeros)]
        total = peers.total(torch.cat([present, *flat]))
        sizes = [parameter.numel() for parameter in self.trunk]
        groups = total[len(self.sums) :].split(sum(sizes))
        self.sums = [
            [piece.view_as(like) for piece, like in zip(group.split(sizes), self.trunk, strict=True)] if found else None
            for group, found in zip(groups, total[: len(self.sums)].tolist(), strict=True)
        ]
        self.settle(self._key)


def _set(parameter: nn.Parameter, gradient: Tensor) -> None:
    """In the memory layout of the parameter, which the fused optimiser takes for granted without a check."""
    parameter.grad = torch.empty_like(parameter).copy_(gradient).detach()
