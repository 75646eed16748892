"""Where a search begins: on the first image that differs, and on none where rounding explains what is another."""

from __future__ import annotations

import numpy as np
import pytest

from apex_runtime.parity.bisect.case import first_difference
from apex_runtime.parity.cases import Case
from apex_runtime.parity.run import compare_sessions
from apex_runtime.parity.tolerance import Rules, load_profile
from apex_runtime.routing.budget import parse_budget

RULES = Rules(load_profile("quality"), "fp16")
BUDGETS = (parse_budget("1"),)
EVEN = -np.linspace(0, 1, 8, dtype=np.float32)  # takes back what the stand-in adds, so that every tile of a grey image ties


@pytest.fixture
def grey(fake: type) -> list[Case]:
    info = fake().info
    pixels = np.full((info.input.height, info.input.width, 3), 100, np.uint8)
    return [Case("grey.png", pixels, np.ones(info.tiles.count, bool), False)]


def raised(by: float) -> np.ndarray:
    shift = EVEN.copy()
    shift[5] += by
    return shift


def test_a_swap_that_rounding_explains_is_no_difference(fake: type, grey: list[Case]) -> None:
    reference, candidate = fake(utility_shift=EVEN), fake(utility_shift=raised(1 / 128))
    (result,) = compare_sessions(reference, candidate, grey, BUDGETS, RULES)
    assert (result.decisions.overlaps, result.decisions.unexplained) == ([0.0], 0), "another tile, or this shows nothing"
    assert first_difference(reference, candidate, grey, BUDGETS, RULES) is None


def test_a_swap_that_it_does_not_explain_is_one(fake: type, grey: list[Case]) -> None:
    class Otherwise(fake):  # type: ignore[misc, valid-type]
        """Chooses by a utility that it does not tell."""

        def run(self, images, tiles, tile_bonus):
            self.shift = raised(1.0)
            outputs = super().run(images, tiles, tile_bonus)
            outputs["utilities"][0, 5] -= 1.5
            return outputs

    reference = fake(utility_shift=raised(-0.5))
    found = first_difference(reference, Otherwise(), grey, BUDGETS, RULES)
    assert found is not None and (found.mode, list(found.outputs)) == ("free", ["tile_ids"])
