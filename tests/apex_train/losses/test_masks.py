"""Mask losses: small for the truth, large for its opposite, blind outside the box, equal to a loop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from apex_train.config import MaskRegion
from apex_train.losses.assignment import Assignment
from apex_train.losses.masks import MARGIN, choose_instances, compare, mask_bce, mask_dice


def one_mask() -> tuple[torch.Tensor, torch.Tensor]:
    target = torch.zeros(1, 16, 16)
    target[0, 4:10, 3:12] = 1
    return target, torch.tensor([[12.0, 16.0, 48.0, 40.0]])


def losses_of(logits: torch.Tensor, target: torch.Tensor, boxes: torch.Tensor) -> tuple[float, float]:
    pairs = compare(torch.ones(1, 1), logits[None], torch.tensor([0]), target, boxes)
    return float(mask_bce(pairs)), float(mask_dice(pairs))


def test_the_truth_costs_nothing_and_its_opposite_much() -> None:
    target, boxes = one_mask()
    good, bad = losses_of(20 * (2 * target - 1), target, boxes), losses_of(20 * (1 - 2 * target), target, boxes)
    assert max(good) < 1e-3 and bad[0] > 10 and bad[1] > 0.9


def test_cells_far_outside_the_box_do_not_count() -> None:
    target, boxes = one_mask()
    logits = 20 * (2 * target - 1)
    logits[0, 15, 15] = 20
    assert max(losses_of(logits, target, boxes)) < 1e-3


@pytest.mark.parametrize(("region", "grown"), [("wide", lambda half: half * MARGIN + 1), ("box", lambda half: half + 0.5)])
def test_equal_to_a_loop(region: MaskRegion, grown: Callable[[float], float]) -> None:
    torch.manual_seed(0)
    target, boxes = torch.rand(2, 12, 12), torch.tensor([[4.0, 8.0, 30.0, 40.0], [0.0, 0.0, 20.0, 16.0]])
    coefficients, prototypes = torch.randn(2, 3), torch.randn(2, 3, 12, 12)
    pairs = compare(coefficients, prototypes, torch.tensor([0, 1]), target, boxes, region)
    bce, dice = mask_bce(pairs), mask_dice(pairs)
    for i in range(2):
        logits = sum(coefficients[i, p] * prototypes[i, p] for p in range(3))
        x1, y1, x2, y2 = (boxes[i] / 4).tolist()
        cells = [
            (y, x)
            for y in range(12)
            for x in range(12)
            if abs(x + 0.5 - (x1 + x2) / 2) < grown((x2 - x1) / 2) and abs(y + 0.5 - (y1 + y2) / 2) < grown((y2 - y1) / 2)
        ]
        l, t = (torch.stack([m[y, x] for y, x in cells]) for m in (logits, target[i]))  # noqa: E741
        p = l.sigmoid()
        torch.testing.assert_close(bce[i], F.binary_cross_entropy_with_logits(l, t))
        torch.testing.assert_close(dice[i], 1 - (2 * (p * t).sum() + 1) / ((p * p).sum() + (t * t).sum() + 1))


@given(corner=st.tuples(*[st.floats(0, 60)] * 2), size=st.tuples(*[st.floats(0.01, 60)] * 2))
def test_a_box_touches_just_the_cells_it_overlaps(corner: tuple[float, float], size: tuple[float, float]) -> None:
    low, high = np.float32(corner), np.minimum(np.float32(corner) + np.float32(size), np.float32(64))
    boxes = torch.from_numpy(np.concatenate([low, high]))[None]
    inside = compare(torch.ones(1, 1), torch.zeros(1, 1, 16, 16), torch.tensor([0]), torch.zeros(1, 16, 16), boxes, "box").inside[
        0
    ]
    edges = np.arange(17) * 4.0
    overlap = [np.minimum(edges[1:], high[axis]) - np.maximum(edges[:-1], low[axis]) for axis in (1, 0)]
    clear = np.abs(overlap[0])[:, None].clip(max=np.abs(overlap[1])[None]) > 1e-3  # on an edge rounding decides
    expected = (overlap[0] > 0)[:, None] & (overlap[1] > 0)[None]
    np.testing.assert_array_equal(inside.numpy()[clear] > 0, expected[clear])


def test_the_best_anchors_of_objects_with_masks_are_compared() -> None:
    objects = torch.tensor([[0, 0, 0, 1, -1, 0], [-1, -1, 0, -1, -1, -1]])
    quality = torch.tensor([[0.9, 0.2, 0.8, 0.7, 0.0, 0.1], [0.0, 0, 0.5, 0, 0, 0]])
    has_mask = torch.tensor([[True, False], [True, True]])
    image, anchor, item = choose_instances(Assignment(objects, quality), has_mask, 2)
    assert sorted(zip(image.tolist(), anchor.tolist(), item.tolist(), strict=True)) == [(0, 0, 0), (0, 2, 0), (1, 2, 0)]


def test_without_masks_nothing_is_compared() -> None:
    image, anchor, item = choose_instances(
        Assignment(torch.zeros(1, 4, dtype=torch.long), torch.ones(1, 4)), torch.zeros(1, 1, dtype=torch.bool), 2
    )
    assert len(image) == len(anchor) == len(item) == 0
