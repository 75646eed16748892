"""What changes from step to step: the learning rate and the number of tiles."""

from __future__ import annotations

import numpy as np
import pytest

from apex_train.config import RoutingConfig
from apex_train.engine.schedule import draw_tiles, exploration_bonus, rate_factor


def test_the_rate_warms_up_and_falls() -> None:
    factors = [rate_factor(step, 100, 10, 0.05) for step in range(100)]
    assert factors[0] == 0.1 and max(factors) == factors[10] == 1.0
    assert factors[10:] == sorted(factors[10:], reverse=True) and factors[-1] == pytest.approx(0.05, abs=0.01)


def test_tiles_of_a_step() -> None:
    config, rng = RoutingConfig(all_tiles=0.5, keep_all=0.3, min_share=0.25), np.random.default_rng(0)
    assert {draw_tiles(step, 1000, 16, config, rng) for step in range(500)} == {16}
    later = [draw_tiles(step, 1000, 16, config, rng) for step in range(500, 1000)]
    assert set(later) == set(range(4, 17)) and 0.3 < later.count(16) / 500 < 0.45
    bonus = exploration_bonus(3, 16, 8, 0.25, rng)
    assert ((bonus == 24).sum(1) == 2).all() and not exploration_bonus(3, 16, 16, 0.25, rng).any()
