"""Loss and gradients of one effective batch, in as many micro-batches as memory asks for, in as many processes as there are.

Everything that is divided by something is divided by what the whole batch has, which is known before the first micro-batch: how
a batch is cut changes nothing but rounding.
"""

from __future__ import annotations

import math
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
from apex_train.engine.oracle import tile_gains
from apex_train.engine.quadtree import add_finer_levels, finer_question
from apex_train.engine.routing import RoutingFigures
from apex_train.engine.schedule import draw_tiles, exploration_bonus
from apex_train.losses.budget import BudgetPrice, DualVariable
from apex_train.losses.clipping import CostLimit, object_costs
from apex_train.losses.compute import KEYS, Matcher, compute_training_losses
from apex_train.losses.oracle import OracleLabels
from apex_train.model.detector import ApexDetector, Outputs

AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, eq=False)
class Draw:
    """What chance decided for one step: K tiles (of every level, where there are several), bonus float32 [B,N] of this process'
    images, whether the pass without tiles is made too, what the oracle is asked; ``key`` is (seed, step), for what is drawn
    later."""

    tiles: Tiles
    bonus: np.ndarray
    with_peripheral: bool
    question: Question
    key: tuple[int, int] = (0, 0)


@dataclass(frozen=True, eq=False)
class Question:
    """What the oracle is asked in a step: of which of this process' images (bool [B]), ``images`` of the whole effective batch,
    over how many tiles of the router's own choice on every level; ``chance`` float32 [B,N] decides about which tiles."""

    asked: np.ndarray
    images: int
    tiles: tuple[int, ...]
    chance: np.ndarray


def draw_step(config: FitConfig, step: int, total: int, count: int, images: int, rows: slice) -> Draw:
    """The draw of a step from (seed, step): the same in every process and however the batch of ``images`` is cut. ``count`` is of
    level 0."""
    rng = np.random.default_rng([config.train.seed, step])
    first = draw_tiles(step, total, count, config.routing, rng)
    bonus = exploration_bonus(images, count, first, config.routing.explore, rng)
    tiles, bonus = add_finer_levels(first, bonus, config.model.depth, config.routing, rng)
    question = _draw_question(config, count, images, rows, rng)
    # The peripheral pass teaches the K = 0 line; every other step is enough and saves a tenth of the time.
    return Draw(tiles, bonus[rows], step % 2 == 0, question, (config.train.seed, step))


def _draw_question(config: FitConfig, count: int, images: int, rows: slice, rng: np.random.Generator) -> Question:
    """At budgets below half of the tiles, where the choice matters."""
    wanted = math.ceil(config.routing.oracle_images * images)
    asked = np.zeros(images, bool)
    asked[rng.choice(images, wanted, replace=False)] = True
    least = math.ceil(config.routing.min_share * count)
    first = int(rng.integers(least, max(least, count // 2) + 1))
    tiles, counts = finer_question(first, count, config.model.depth, rng)
    return Question(asked[rows], wanted, tiles, rng.random((images, sum(counts)), np.float32)[rows])


class Stepper:
    """Computes the gradients of a model."""

    def __init__(
        self, model: ApexDetector, config: FitConfig, placement: Placement, amp: Amp, scaler: torch.amp.GradScaler, peers: Peers
    ) -> None:
        self.model, self.config, self.placement = model, config, placement
        self.amp, self.scaler, self.peers = amp, scaler, peers
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.tasks = TaskGradients(model) if config.loss.pcgrad else None
        self.dual = DualVariable()
        self.limit = CostLimit(config.labels.clip) if config.labels.clip else None
        self.figures = RoutingFigures(model, config)

    def gradients(self, batch: Batch, draw: Draw, plan: Plan, images: int, objects: int) -> Tensor:
        """Fill the parameters' gradients, of this process' share. ``images`` and ``objects`` are of the whole effective batch.

        Returns float32 [len(self.reported)] of this share; over all processes they add up.
        """
        self.model.recompute = plan.recompute
        for parameter in self.parameters:
            parameter.grad = None
        if self.tasks:
            self.tasks.clear()
        report = torch.zeros(len(self.reported), device=self.placement.device)
        for start in range(0, len(batch), plan.micro_batch):
            rows = slice(start, start + plan.micro_batch)
            part = batch.part(rows.start, rows.stop).to(self.placement.device)
            report += self._part(part, draw, rows, len(part) / images, objects)
        if self.tasks:
            self.tasks.settle(draw.key)
        return report

    @property
    def reported(self) -> tuple[str, ...]:
        """The names of what a step reports: the terms, then the figures of the routing, then those of the limit of costs."""
        return (*KEYS, *self.figures.names, *(self.limit.names if self.limit else ()))

    def _part(self, part: Batch, draw: Draw, rows: slice, share: float, objects: int) -> Tensor:
        labels = self._labels(part, draw.question, rows) if self.config.loss.oracle else ()
        bonus = torch.from_numpy(draw.bonus[rows]).to(self.placement.device)
        kind = AMP_TYPES.get(self.amp, torch.bfloat16)
        with torch.autocast(self.placement.device.type, dtype=kind, enabled=self.amp != "off"):
            outputs = self.model(part.images, draw.tiles, bonus, with_peripheral=draw.with_peripheral)
        price = BudgetPrice(self.dual.mu, self.config.routing.share, self.figures.cost) if self.config.loss.budget else None
        part, matcher, costs = self._damped(outputs, part, objects)
        total, terms = compute_training_losses(outputs, part, self.config.loss, objects, share, price, labels, matcher)
        if self.tasks:
            self.tasks.add(terms, self.scaler)
        else:
            self.scaler.scale(total).backward()
        found = torch.stack([terms[key].detach().float() for key in KEYS])
        return torch.cat([found, self.figures.of(outputs, share, labels), *costs])

    def _damped(self, outputs: Outputs, part: Batch, objects: int) -> tuple[Batch, Matcher | None, list[Tensor]]:
        """The targets with costly objects damped, the matcher it took, and the figures; untouched without ``labels.clip``."""
        if self.limit is None:
            return part, None, []
        with torch.autocast(self.placement.device.type, enabled=False):
            matcher = Matcher(outputs.heads, part, self.config.loss)
            costs_BG = object_costs(outputs.heads, part, matcher, self.config.loss)
        part, figures = self.limit.damp(costs_BG, part, objects)
        return part, matcher, [figures]

    def learn_from(self, terms: dict[str, float]) -> None:
        """After a step that counts: what the price of the budget and the limit of costs follow."""
        if self.config.loss.budget:
            self.dual.update(terms["budget_excess"])
        if self.limit:
            self.limit.update(terms)

    def _labels(self, part: Batch, question: Question, rows: slice) -> tuple[OracleLabels, ...]:
        asked = torch.from_numpy(np.flatnonzero(question.asked[rows])).to(self.placement.device)
        if len(asked) == 0:
            return ()
        chance = torch.from_numpy(question.chance[rows]).to(self.placement.device)[asked]
        sampled = self.config.routing.oracle_tiles
        found = tile_gains(self.model, part.pick(asked), self.config.loss, question.tiles, sampled, chance)
        return tuple(OracleLabels(asked, ids, gains, len(asked) / question.images) for ids, gains in found)

    def shared(self, report: Tensor) -> Tensor:
        """Gradients and report added up over the processes."""
        if self.tasks:
            self.tasks.share(self.peers)
        else:
            self.peers.add_gradients(self.parameters)
        return self.peers.total(report)

    def diagnostics(self) -> dict[str, float]:
        """What is logged beside the terms: the price of the budget, and with ``loss.pcgrad`` the share of pairs of tasks that
        were in conflict."""
        return {"mu": self.dual.mu} | ({"pcgrad_conflicts": self.tasks.rate} if self.tasks else {})
