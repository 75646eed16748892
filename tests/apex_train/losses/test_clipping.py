"""What an object costs, held against differences of the losses themselves; a limit that damps, and a median that is one."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from apex_train.config import LossConfig
from apex_train.data.loader import Batch
from apex_train.losses.clipping import CostLimit, object_costs
from apex_train.losses.compute import Matcher, compute_training_losses
from apex_train.model.config import ModelConfig
from apex_train.model.detector import ApexDetector, Outputs

SIDE = 64
ALL = LossConfig(mask_boundary=0.5, mask_lovasz=0.5, oracle=0)


def batch_of(images: int = 2) -> Batch:
    boxes = torch.tensor([[[4.0, 4, 28, 28], [36, 32, 60, 60], [0, 0, 0, 0]]]).repeat(images, 1, 1)
    masks = torch.zeros(images, 3, SIDE // 4, SIDE // 4, dtype=torch.uint8)
    masks[:, 0, 1:7, 1:7] = masks[:, 1, 8:15, 9:15] = 255
    labels = torch.tensor([[0, 0, -1]]).repeat(images, 1)
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (images, SIDE, SIDE, 3), np.uint8))
    ignore = torch.zeros(images, SIDE // 4, SIDE // 4, dtype=torch.uint8)
    weights = torch.tensor([[0.5, 0.25, 1.0]]).repeat(images, 1)
    return Batch(image, boxes, labels, masks, labels >= 0, ignore, list(range(images)), weights)


def outputs_of(batch: Batch) -> Outputs:
    torch.manual_seed(0)
    with torch.no_grad():
        return ApexDetector(ModelConfig()).eval()(batch.images, 1, torch.zeros(len(batch), 1))


def test_costs_are_what_the_losses_lose_without_the_object() -> None:
    batch = batch_of()
    outputs = outputs_of(batch)
    costs = object_costs(outputs.heads, batch, Matcher(outputs.heads, batch, ALL), ALL)

    def total(weights: torch.Tensor) -> float:
        return float(compute_training_losses(outputs, replace(batch, weights=weights), ALL, objects=1)[0])

    every = torch.ones_like(batch.weights)
    for b in range(2):
        for g in range(2):
            without = every.clone()
            without[b, g] = 0
            assert float(costs[b, g]) == pytest.approx(total(every) - total(without), rel=1e-3) and costs[b, g] > 1
    assert costs[:, 2].tolist() == [0, 0]


def test_a_costly_object_counts_as_one_at_the_limit() -> None:
    batch = batch_of()
    limit = CostLimit(2.0)
    costs = torch.tensor([[3.0, 40.0, 0.0], [8.0, 9.0, 0.0]])
    damped, figures = limit.damp(costs, batch, 4)
    assert torch.equal(damped.weights, batch.weights)  # nothing is known yet
    assert figures.tolist() == [15.0, 1.0, 0.0]
    limit.update(dict(zip(limit.names, figures.tolist(), strict=True)))
    limit.median = 4.0
    damped, figures = limit.damp(costs, batch, 4)
    expected = batch.weights * torch.tensor([[1, 8 / 40, 1], [1, 8 / 9, 1]])
    assert damped.weights.tolist() == expected.tolist()
    assert figures.tolist() == [15.0, 0.75, 0.5]


def test_figures_of_parts_add_up() -> None:
    limit, costs, batch = CostLimit(1.0), torch.tensor([[3.0, 40.0, 0.0], [8.0, 9.0, 0.0]]), batch_of()
    limit.median = 8.5
    whole = limit.damp(costs, batch, 4)[1]
    parts = [limit.damp(costs[row : row + 1], batch.part(row, row + 1), 4)[1] for row in range(2)]
    assert torch.equal(whole, parts[0] + parts[1])


def test_the_running_median_finds_the_median_and_follows_it() -> None:
    rng, limit = np.random.default_rng(0), CostLimit(3.0)
    batch = replace(batch_of(1), weights=torch.ones(1, 64))
    for scale, steps in ((5.0, 60), (0.5, 80)):
        for _ in range(steps):
            costs = torch.from_numpy(scale * rng.lognormal(0.0, 1.0, (1, 64)).astype(np.float32))
            figures = limit.damp(costs, batch, 64)[1]
            limit.update(dict(zip(limit.names, figures.tolist(), strict=True)))
        assert limit.median == pytest.approx(scale, rel=0.15)  # the mean is 1.65 times that
    other = CostLimit(3.0)
    other.restore(limit.state())
    assert other.median == limit.median


def test_images_without_objects_say_nothing_about_what_one_costs() -> None:
    limit, costs = CostLimit(2.0), torch.zeros(1, 3)
    limit.median = 4.0
    for _ in range(10):
        limit.update(dict(zip(limit.names, limit.damp(costs, batch_of(1), 0)[1].tolist(), strict=True)))
    assert limit.median == 4.0


def test_what_is_not_finite_is_not_hidden() -> None:
    limit = CostLimit(2.0)
    limit.median = 4.0
    damped, _ = limit.damp(torch.tensor([[math.nan, 3.0, 0.0]]), batch_of(1), 2)
    assert math.isnan(damped.weights[0, 0]) and damped.weights[0, 1] == 0.25
