"""The loss that teaches the router: a scale that tells small gains apart, and an order that a constant cannot satisfy."""

from __future__ import annotations

import math

import pytest
import torch

from apex_train.losses.oracle import MARGIN, UNIT, oracle_loss, utility_of


def test_the_scale_is_linear_for_small_gains_logarithmic_for_large_ones_and_fits_the_range_of_utilities() -> None:
    small, large = torch.tensor([1e-4, -1e-4]), torch.tensor([5.0, 50.0])
    assert torch.allclose(utility_of(small), small / UNIT, rtol=1e-4)
    assert float(utility_of(large).diff()) == pytest.approx(math.log(10), rel=1e-3)
    assert float(utility_of(torch.tensor(70.0))) < 8


def test_a_constant_utility_does_not_satisfy_the_ranking() -> None:
    """Gains of +-0.001 around a constant utility leave the regression nearly nothing to say; the order still pulls them apart."""
    gains = torch.tensor([[0.001, -0.001] * 4])
    flat = torch.zeros(1, 8, requires_grad=True)
    oracle_loss(flat, gains).backward()
    assert (flat.grad[0, ::2] < -0.05).all() and (flat.grad[0, 1::2] > 0.05).all()


def test_equal_gains_ask_for_no_order() -> None:
    apart = torch.tensor([[0.3, -0.3]])
    equal = torch.tensor([[0.0, 0.0]])
    assert float(oracle_loss(apart, equal)) == pytest.approx(0.5 * 0.3**2)


def test_the_right_utilities_cost_nothing() -> None:
    gains = torch.tensor([[3.0, 0.02, -0.4, 0.0]])
    assert float(oracle_loss(utility_of(gains), gains)) == pytest.approx(0.0, abs=1e-6)


def test_the_oracle_loss_against_a_loop() -> None:
    torch.manual_seed(0)
    utilities, gains = torch.randn(2, 4), 0.2 * torch.randn(2, 4)
    total, pairs = 0.0, 0.0
    for b in range(2):
        wanted = [math.asinh(float(gain) / UNIT) for gain in gains[b]]
        for i in range(4):
            d = abs(float(utilities[b, i]) - wanted[i])
            total += 0.5 * d * d if d < 1 else d - 0.5
            for j in range(4):
                apart = wanted[i] - wanted[j]
                ahead = math.copysign(1, apart) * float(utilities[b, i] - utilities[b, j])
                pairs += max(0.0, min(MARGIN, abs(apart)) - ahead) if i != j else 0.0
    assert float(oracle_loss(utilities, gains)) == pytest.approx(total / 8 + pairs / 32, rel=1e-5)
