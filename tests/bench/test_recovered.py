"""How much of a loss was recovered: intervals that hold what they promise, and none where there can be none."""

from __future__ import annotations

import numpy as np
import pytest
from recovered import fieller, recovered


def test_figures_of_known_numbers() -> None:
    found = recovered([0.50, 0.52, 0.51], [0.40, 0.43, 0.405], [0.47, 0.49, 0.48])
    assert found["lost"]["value"] == pytest.approx(0.295 / 3) and found["gained"]["value"] == pytest.approx(0.205 / 3)
    assert found["share"]["value"] == pytest.approx(0.205 / 0.295)
    low, high = found["share"]["interval"]
    assert low < found["share"]["value"] < high
    assert found["over_half"]["value"] == pytest.approx((0.205 - 0.295 / 2) / 3) and found["over_half"]["interval"][0] > 0


def test_fieller_is_where_the_contrast_may_be_zero() -> None:
    from scipy.stats import ttest_1samp

    gained, lost = np.array([0.03, 0.05, 0.035, 0.04]), np.array([0.08, 0.09, 0.10, 0.085])
    interval = fieller(gained, lost)
    assert interval is not None
    for end in interval:
        assert ttest_1samp(gained - end * lost, 0).pvalue == pytest.approx(0.05, abs=1e-6)


def test_fieller_covers_the_true_quotient() -> None:
    rng, hits = np.random.default_rng(0), 0
    for _ in range(400):
        lost = rng.normal(0.1, 0.01, 3)
        interval = fieller(0.6 * lost + rng.normal(0, 0.01, 3), lost)
        hits += interval is None or interval[0] <= 0.6 <= interval[1]
    assert 0.92 < hits / 400 < 0.98


def test_without_a_loss_or_with_one_seed_there_is_no_interval() -> None:
    assert fieller(np.array([0.1, -0.1, 0.05]), np.array([0.01, -0.01, 0.0])) is None
    found = recovered([0.5], [0.4], [0.45])
    assert found["share"] == {"value": pytest.approx(0.5), "interval": None} and found["lost"]["interval"] is None
    assert recovered([0.5], [0.5], [0.5])["share"]["value"] is None
