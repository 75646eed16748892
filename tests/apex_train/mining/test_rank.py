"""Ranks as SciPy gives them, and regrets counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata

from apex_train.mining.look import Fared, missed_gain
from apex_train.mining.rank import emphasised, hardest, hardness


def fared(losses: list[float], regrets: list[float | None]) -> list[Fared]:
    return [Fared(place, loss, None, regret, ()) for place, (loss, regret) in enumerate(zip(losses, regrets, strict=True))]


def test_hardness_is_the_mean_of_ranks() -> None:
    losses, regrets = [3.0, 1.0, 1.0, 9.0, 2.0], [0.0, 5.0, 1.0, 1.0, 1.0]
    expected = np.mean([(rankdata(column) - 0.5) / 5 for column in (losses, regrets)], axis=0)
    assert hardness(fared(losses, regrets), ("loss", "regret")).tolist() == pytest.approx(expected.tolist())
    assert hardness(fared(losses, regrets), ("loss",)).tolist() == pytest.approx(((rankdata(losses) - 0.5) / 5).tolist())


def test_a_signal_that_says_nothing_puts_an_image_in_the_middle() -> None:
    found = hardness(fared([1, 2, 3], [None, 4.0, 1.0]), ("regret",))
    assert found.tolist() == [0.5, 0.75, 0.25]
    assert hardness(fared([1, 2], [None, None]), ("disagreement", "regret")).tolist() == [0.5, 0.5]


def test_the_hardest_and_their_weights() -> None:
    hard = np.array([0.2, 0.9, 0.9, 0.4])
    assert hardest(hard, 0.5) == [1, 2] and hardest(hard, 0.01) == [1] and hardest(hard, 1.0) == [1, 2, 3, 0]
    assert emphasised(hard, 3.0).tolist() == pytest.approx([1.4, 2.8, 2.8, 1.8])


def test_what_the_router_missed() -> None:
    gains = np.array([0.1, np.nan, 0.7, -0.2, 0.4])
    assert missed_gain(gains, [0, 3]) == pytest.approx((0.7 + 0.4) - (0.1 - 0.2))
    assert missed_gain(gains, [2, 4]) == 0
    assert missed_gain(gains, [2, 1]) == pytest.approx(0.4)
