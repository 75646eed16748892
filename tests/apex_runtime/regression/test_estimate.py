"""The median and its interval."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apex_runtime.regression.estimate import Estimate, decided, estimate


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=80))
def test_the_interval_holds_the_median_and_consists_of_samples(samples: list[float]) -> None:
    found = estimate(samples)
    assert min(samples) <= found.low <= found.value <= found.high <= max(samples)
    assert {found.low, found.high} <= set(samples) and found.samples == len(samples) and found.spread >= 0


def test_the_interval_misses_the_true_median_about_as_often_as_it_says() -> None:
    draw = random.Random(0)
    missed = 0
    for _trial in range(2000):
        found = estimate([draw.expovariate(1.0) for _ in range(25)])
        missed += not found.low <= math.log(2) <= found.high
    assert missed / 2000 < 0.05


def test_a_few_wild_turns_move_it_little() -> None:
    steady = [1.0 + place / 1000 for place in range(21)]
    assert estimate([*steady, 50.0, 90.0, 200.0]).value == pytest.approx(estimate(steady).value, abs=0.003)


def test_decided_is_far_from_the_limit_for_what_is_known_of_both() -> None:
    now = Estimate(1.0, 0.98, 1.02, 30)
    assert decided(now, 0.0, 1.07) and decided(now, 0.03, 1.07)
    assert not decided(now, 0.08, 1.07), "the limit may be anywhere"
    assert not decided(Estimate(1.06, 1.04, 1.08, 30), 0.0, 1.07)
    assert decided(Estimate(1.15, 1.13, 1.17, 30), 0.02, 1.07)
