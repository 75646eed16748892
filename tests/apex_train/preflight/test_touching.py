"""Touching masks against all pairs, compared pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apex_runtime.data.roi_mask import RoiMask
from apex_train.preflight.touching import touching

SIDE = 12


def by_pairs(masks: list[RoiMask]) -> int:
    """Grow each full mask by its four neighbours and look for pixels of another one."""
    full = [mask.full(SIDE, SIDE).astype(bool) for mask in masks]
    count = 0
    for n, own in enumerate(full):
        padded = np.pad(own, 1)
        grown = own | padded[2:, 1:-1] | padded[:-2, 1:-1] | padded[1:-1, 2:] | padded[1:-1, :-2]
        count += any((grown & other).any() for m, other in enumerate(full) if m != n)
    return count


@given(st.integers(0, 2**32 - 1), st.integers(0, 6))
def test_like_all_pairs(seed: int, count: int) -> None:
    draw = np.random.default_rng(seed)
    masks = []
    for _ in range(count):
        height, width = draw.integers(1, 5, 2)
        bits = (draw.random((height, width)) < 0.7).astype(np.uint8)
        masks.append(RoiMask(int(draw.integers(0, SIDE - width)), int(draw.integers(0, SIDE - height)), bits))
    assert touching(masks, SIDE, SIDE) == by_pairs(masks)


@pytest.mark.parametrize(("x", "y", "expected"), [(3, 0, 2), (2, 2, 2), (3, 3, 0), (4, 0, 0), (0, 0, 2)])
def test_an_edge_counts_and_a_corner_does_not(x: int, y: int, expected: int) -> None:
    block = np.ones((3, 3), np.uint8)
    assert touching([RoiMask(0, 0, block), RoiMask(x, y, block)], SIDE, SIDE) == expected
