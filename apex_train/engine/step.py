"""Loss and gradients of one effective batch, in as many micro-batches as memory asks for, in as many processes as there are.

Everything that is divided by something is divided by what the whole batch has, which is known before the first micro-batch: how
a batch is cut changes nothing but rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from apex_runtime.backends.session import Tiles
from apex_train.config import FitConfig
from apex_train.data.loader import Batch
from apex_train.engine.conflicts import TaskGradients
from apex_train.engine.device import Amp, Placement
from apex_train.engine.distributed import Peers
from apex_train.engine.memory import Plan
from apex_train.engine.quadtree import add_finer_levels
from apex_train.engine.schedule import draw_tiles, exploration_bonus
from apex_train.losses.budget import BudgetPrice, DualVariable, TileCost, excess_cost
from apex_train.losses.compute import KEYS, compute_training_losses
from apex_train.model.detector import ApexDetector, Outputs
from apex_train.model.info import count_gflops

EXTRAS = ("alpha", "budget_excess")  # what a step reports beside the terms
AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, eq=False)
class Draw:
    """What chance decided for one step: K tiles (of every level, where there are several), bonus float32 [B,N] of this process'
    images, whether the pass without tiles is made too; ``key`` is (seed, step), for what is drawn later."""

    tiles: Tiles
    bonus: np.ndarray
    with_peripheral: bool
    key: tuple[int, int] = (0, 0)


def draw_step(config: FitConfig, step: int, total: int, count: int, images: int, rows: slice) -> Draw:
    """The draw of a step from (seed, step): the same in every process and however the batch of ``images`` is cut. ``count`` is of
    level 0."""
    rng = np.random.default_rng([config.train.seed, step])
    first = draw_tiles(step, total, count, config.routing, rng)
    bonus = exploration_bonus(images, count, first, config.routing.explore, rng)
    tiles, bonus = add_finer_levels(first, bonus, config.model.depth, config.routing, rng)
    # The peripheral pass teaches the K = 0 line and the router; every other step is enough and saves a tenth of the time.
    return Draw(tiles, bonus[rows], step % 2 == 0, (config.train.seed, step))


class Stepper:
    """Computes the gradients of a model."""

    def __init__(
        self, model: ApexDetector, config: FitConfig, placement: Placement, amp: Amp, scaler: torch.amp.GradScaler, peers: Peers
    ) -> None:
        self.model, self.config, self.placement = model, config, placement
        self.amp, self.scaler, self.peers = amp, scaler, peers
        self.parameters = list(model.parameters())
        self.tasks = TaskGradients(model) if config.loss.pcgrad else None
        self.dual = DualVariable()
        crop = config.train.crop
        # In GFLOPs where the cost matters; in tiles where it is only watched, for counting takes two forward passes.
        self.cost = TileCost(count_gflops(model, crop, crop).per_tile if config.loss.budget else 1.0)

    def gradients(self, batch: Batch, draw: Draw, plan: Plan, images: int, objects: int) -> Tensor:
        """Fill the parameters' gradients, of this process' share. ``images`` and ``objects`` are of the whole effective batch.

        Returns float32 [len(KEYS) + len(EXTRAS)] of this share; over all processes they add up.
        """
        self.model.recompute = plan.recompute
        for parameter in self.parameters:
            parameter.grad = None
        if self.tasks:
            self.tasks.clear()
        report = torch.zeros(len(KEYS) + len(EXTRAS), device=self.placement.device)
        for start in range(0, len(batch), plan.micro_batch):
            part = batch.part(start, start + plan.micro_batch).to(self.placement.device)
            bonus = torch.from_numpy(draw.bonus[start : start + plan.micro_batch]).to(self.placement.device)
            report += self._part(part, bonus, draw, len(part) / images, objects)
        if self.tasks:
            self.tasks.settle(draw.key)
        return report

    def _part(self, part: Batch, bonus: Tensor, draw: Draw, share: float, objects: int) -> Tensor:
        kind = AMP_TYPES.get(self.amp, torch.bfloat16)
        with torch.autocast(self.placement.device.type, dtype=kind, enabled=self.amp != "off"):
            outputs = self.model(part.images, draw.tiles, bonus, with_peripheral=draw.with_peripheral)
        tile = self.model.config.coarse_tile
        price = BudgetPrice(self.dual.mu, self.config.routing.share, self.cost) if self.config.loss.budget else None
        total, terms = compute_training_losses(outputs, part, self.config.loss, tile, objects, share, price)
        if self.tasks:
            self.tasks.add(terms, self.scaler)
        else:
            self.scaler.scale(total).backward()
        return torch.stack([*(terms[key].detach().float() for key in KEYS), *self._extras(outputs, share)])

    def _extras(self, outputs: Outputs, share: float) -> tuple[Tensor, Tensor]:
        utilities = outputs.utilities.detach().float()
        return share * outputs.alpha.detach().float().mean(), share * excess_cost(utilities, self.cost, self.config.routing.share)

    def shared(self, report: Tensor) -> Tensor:
        """Gradients and report added up over the processes."""
        if self.tasks:
            self.tasks.share(self.peers)
        else:
            self.peers.add_gradients(self.parameters)
        return self.peers.total(report)

    def diagnostics(self) -> dict[str, float]:
        """What is logged beside the terms: with ``loss.pcgrad`` the share of pairs of tasks that were in conflict, with
        ``loss.budget`` the price of the budget."""
        found = {"pcgrad_conflicts": self.tasks.rate} if self.tasks else {}
        return found | ({"mu": self.dual.mu} if self.config.loss.budget else {})
