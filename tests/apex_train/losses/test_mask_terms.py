"""Lovász hinge, boundary, scales and quality, each against the definition written out in float64."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apex_runtime.errors import ConfigError
from apex_train.config import LossConfig, load_config
from apex_train.losses.boundary import LIMIT, mask_boundary, squared_distance
from apex_train.losses.lovasz import mask_lovasz
from apex_train.losses.mask_terms import MASK_KEYS, mask_weights
from apex_train.losses.masks import MaskPairs, mask_bce, mask_dice
from apex_train.losses.multiscale import SCALES, mask_multiscale
from apex_train.losses.quality import drawn_iou, mask_quality

LOSSES = (mask_bce, mask_dice, mask_lovasz, mask_boundary, mask_multiscale)


def random_pairs(seed: int, count: int = 3, height: int = 8, width: int = 12, hard: bool = False) -> MaskPairs:
    """Float64 instances with truth of all kinds, one of them empty, and regions that are rectangles."""
    rng = np.random.default_rng(seed)
    target = rng.uniform(0, 1, (count, height, width)) * (rng.uniform(0, 1, (count, height, width)) < 0.6)
    target[-1] = 0
    inside = np.zeros_like(target)
    for item in inside:
        top, left = rng.integers(0, height - 3), rng.integers(0, width - 3)
        item[top : top + rng.integers(2, height), left : left + rng.integers(2, width)] = 1
    logits = rng.choice([-1.0, 1.0], target.shape) if hard else 3 * rng.standard_normal(target.shape)
    return MaskPairs(*(torch.from_numpy(item) for item in (logits, target, inside)))


def jaccard_of_errors(wrong: np.ndarray, truth: np.ndarray) -> float:
    """1 - IoU of the mask that is wrong exactly where ``wrong``; an empty mask of nothing is right."""
    mask = truth ^ wrong
    return 1 - (mask & truth).sum() / (mask | truth).sum() if (mask | truth).any() else 0.0


def lovasz_extension(error: np.ndarray, truth: np.ndarray) -> float:
    """The integral over t > 0 of the set function at {error >= t}."""
    levels = np.unique(np.concatenate([[0.0], error[error > 0]]))
    return sum((high - low) * jaccard_of_errors(error >= high, truth) for low, high in pairwise(levels))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_lovasz_is_the_extension_by_its_definition(seed: int) -> None:
    pairs = random_pairs(seed)
    ours = mask_lovasz(pairs).numpy()
    for item in range(len(ours)):
        cells = pairs.inside[item].numpy() > 0
        truth = (pairs.target[item].numpy() > 0.5)[cells]
        error = 1 - pairs.logits[item].numpy()[cells] * np.where(truth, 1, -1)
        assert ours[item] == pytest.approx(lovasz_extension(error, truth), abs=1e-6)


def test_lovasz_of_a_hard_mask_is_twice_its_jaccard_loss() -> None:
    pairs = random_pairs(3, hard=True)
    for item, value in enumerate(mask_lovasz(pairs).tolist()):
        cells, truth = pairs.inside[item] > 0, pairs.truth[item]
        drawn = (pairs.logits[item] > 0) & cells
        assert value == pytest.approx(2 * (1 - float((drawn & truth).sum() / (drawn | truth).sum())), abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_those_of_finite_differences(loss) -> None:
    pairs = random_pairs(5, count=2, height=5, width=6)  # odd sides, too
    logits = pairs.logits.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(MaskPairs(x, pairs.target, pairs.inside)), logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_truth_costs_nothing_and_more_wrong_cells_cost_more(loss) -> None:
    target = torch.zeros(1, 16, 16)
    target[0, 4:12, 4:12] = 1  # on the coarse cells, or they would have an entropy of their own
    sure, inside = 40 * (2 * target - 1), torch.ones_like(target)
    costs = []
    for wrong in range(9):
        logits = sure.clone()
        logits[0, 4 : 4 + wrong, 4:12] *= -1
        costs.append(float(loss(MaskPairs(logits, target, inside))))
    assert costs[0] < 1e-5 and all(high > low for low, high in pairwise(costs))


@pytest.mark.parametrize("loss", LOSSES)
def test_no_wrong_cell_of_the_region_is_overlooked_and_none_beyond_it_counts(loss) -> None:
    """False cells on the truth's rim and far from it, holes at the rim and deep inside: each costs and is pulled back."""
    target, inside = torch.zeros(1, 40, 40), torch.zeros(1, 40, 40)
    target[0, 4:24, 4:24], inside[0, 2:38, 2:38] = 1, 1
    right = 5 * (2 * target - 1)
    base = float(loss(MaskPairs(right, target, inside)))
    for row, column in ((24, 10), (30, 30), (37, 37), (4, 4), (14, 14)):
        logits = right.clone()
        logits[0, row, column] *= -0.4
        logits.requires_grad_()
        value = loss(MaskPairs(logits, target, inside)).sum()
        value.backward()
        assert float(value.detach()) > base
        assert float(logits.grad[0, row, column]) * float(2 * target[0, row, column] - 1) < 0
    beyond = right.clone()
    beyond[0, 39, 39] = 9
    assert float(loss(MaskPairs(beyond, target, inside))) == base


@pytest.mark.parametrize("loss", LOSSES)
def test_saturated_and_empty_masks_stay_finite(loss) -> None:
    for target in (torch.zeros(1, 8, 8), torch.ones(1, 8, 8)):
        for value in (-200.0, 0.0, 200.0):
            logits = torch.full((1, 8, 8), value, requires_grad=True)
            found = loss(MaskPairs(logits, target, torch.ones(1, 8, 8)))
            found.sum().backward()
            assert torch.isfinite(found).all() and torch.isfinite(logits.grad).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(-1, 1), st.integers(-1, 1))
def test_the_boundary_term_grows_with_the_displacement(height: int, width: int, down: int, right: int) -> None:
    """Of a rectangle moved step by step, on an open field; unlike the overlap of bands it does not fall again further on."""
    target = torch.zeros(1, 48, 48)
    target[0, 18 : 18 + height, 18 : 18 + width] = 1
    inside = torch.ones_like(target)
    costs = []
    for step in range(14):
        moved = torch.roll(target, (step * down, step * right), (1, 2))
        costs.append(float(mask_boundary(MaskPairs(40 * (2 * moved - 1), target, inside))))
    assert costs[0] < 1e-6
    if down or right:
        assert costs[1] > 0 and all(later >= earlier - 1e-6 for earlier, later in pairwise(costs))


@pytest.mark.parametrize("side", [8, 16, 24])
def test_the_boundary_term_is_of_the_scale_it_says(side: int) -> None:
    """A contour one cell off on one of two sides each: about (1 / LIMIT)^2 / 2 of a band's worth, for any size."""
    target = torch.zeros(1, 48, 48)
    target[0, 10 : 10 + side, 10 : 10 + side] = 1
    moved = torch.roll(target, 1, 2)
    cost = float(mask_boundary(MaskPairs(40 * (2 * moved - 1), target, torch.ones_like(target))))
    assert 0.3 < cost / (0.5 / LIMIT**2) < 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_distances_are_those_of_opencv(seed: int, share: float) -> None:
    source = np.random.default_rng(seed).uniform(size=(2, 13, 9)) < share
    source[1, 6, 4] = True
    ours = squared_distance(torch.from_numpy(source)).numpy()
    for found, item in zip(ours, source, strict=True):
        if item.any():
            exact = cv2.distanceTransform((~item).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            np.testing.assert_array_equal(found, np.minimum(np.rint(exact.astype(np.float64) ** 2), LIMIT**2))
        else:
            assert (found == LIMIT**2).all()


def test_scales_equal_to_a_loop() -> None:
    pairs = random_pairs(7, height=7, width=12)
    ours = mask_multiscale(pairs).numpy()
    logits, target, inside = (item.numpy() for item in (pairs.logits, pairs.target, pairs.inside))
    probability = 1 / (1 + np.exp(-logits))
    for item in range(len(ours)):
        total = 0.0
        for side in (2**scale for scale in range(1, SCALES + 1)):
            rows = []
            for y in range(0, 7, side):
                for x in range(0, 12, side):
                    window = np.s_[item, y : y + side, x : x + side]
                    count = inside[window].sum()
                    if count:
                        p, t = ((values[window] * inside[window]).sum() / count for values in (probability, target))
                        rows.append((p, t, count / side**2))
            p, t, w = np.array(rows).T
            total += (w * -(t * np.log(p) + (1 - t) * np.log(1 - p))).sum() / w.sum()
            total += 1 - (2 * (w * p * t).sum() + 1) / ((w * p * p).sum() + (w * t * t).sum() + 1)
        assert ours[item] == pytest.approx(total / SCALES, abs=1e-9)


def test_a_confident_mistake_keeps_its_gradient_at_every_scale() -> None:
    logits = torch.full((1, 8, 8), -150.0, requires_grad=True)  # the sigmoid is 0 in float32
    mask_multiscale(MaskPairs(logits, torch.ones(1, 8, 8), torch.ones(1, 8, 8))).sum().backward()
    assert (logits.grad < -1e-3).all()


def test_quality_learns_the_iou_of_what_is_drawn() -> None:
    pairs = random_pairs(9)
    found = drawn_iou(pairs)
    for item in range(len(found)):
        cells = pairs.inside[item] > 0
        drawn, truth = (pairs.logits[item] > 0) & cells, (pairs.target[item] > 0.5) & cells
        assert float(found[item]) == pytest.approx(float((drawn & truth).sum() / (drawn | truth).sum()))
    quality = torch.logit(found.double(), eps=1e-6).requires_grad_()
    mask_quality(quality, pairs).sum().backward()
    assert float(quality.grad.abs().max()) < 1e-5  # the IoU itself is where it rests
    empty = MaskPairs(-torch.ones(1, 4, 4), torch.zeros(1, 4, 4), torch.ones(1, 4, 4))
    assert float(drawn_iou(empty)) == 0


def test_new_terms_are_off_by_default_and_quality_needs_its_head() -> None:
    weights = mask_weights(LossConfig())
    assert tuple(weights) == MASK_KEYS and [key for key, value in weights.items() if value] == ["mask_bce", "mask_dice"]
    with pytest.raises(ConfigError, match=r"set model\.mask_quality to true"):
        load_config(None, {"loss.mask_quality": 1})
    assert load_config(None, {"loss.mask_quality": 1, "model.mask_quality": True}).network(({"id": 1, "name": "a"},)).mask_quality
