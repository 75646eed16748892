from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from apex_runtime.data.satellite.components import components, whole


def flood(binary: np.ndarray, connectivity: int) -> list[set[tuple[int, int]]]:
    """An independent reference: breadth-first search, pixel by pixel."""
    diagonal = [(-1, -1), (-1, 1), (1, -1), (1, 1)] if connectivity == 8 else []
    steps = [(-1, 0), (1, 0), (0, -1), (0, 1), *diagonal]
    left = {(int(y), int(x)) for y, x in np.argwhere(binary)}
    regions = []
    while left:
        seen, edge = set(), {min(left)}
        while edge:
            seen |= edge
            edge = {(y + dy, x + dx) for y, x in edge for dy, dx in steps} & left - seen
        left -= seen
        regions.append(seen)
    return regions


@settings(max_examples=60, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.sampled_from([0, 0, 1, 255])), st.data())
def test_regions_are_those_of_a_flood_fill(binary: np.ndarray, data: st.DataObject) -> None:
    connectivity, min_area = data.draw(st.sampled_from([4, 8])), data.draw(st.integers(1, 5))
    masks, dropped = components(binary, min_area, connectivity)
    expected = flood(binary, connectivity)
    found = [{(int(y), int(x)) for y, x in np.argwhere(mask.full(*binary.shape))} for mask in masks]
    assert sorted(map(sorted, found)) == sorted(sorted(region) for region in expected if len(region) >= min_area)
    assert dropped == sum(len(region) < min_area for region in expected)
    for mask in masks:  # tight
        assert mask.bits.any(axis=0)[[0, -1]].all() and mask.bits.any(axis=1)[[0, -1]].all()


def test_corners_touch_by_eight_and_not_by_four() -> None:
    checkers = np.eye(6, dtype=np.uint8)
    assert len(components(checkers, 1, 8)[0]) == 1
    assert len(components(checkers, 1, 4)[0]) == 6


def test_many_regions_of_a_large_scene_cost_their_own_pixels() -> None:
    binary = np.zeros((2000, 2000), np.uint8)
    for y in range(0, 2000, 80):
        for x in range(0, 2000, 80):
            binary[y : y + 40, x : x + 40] = 255
    masks, dropped = components(binary, 64)
    assert (len(masks), dropped) == (625, 0)
    assert sum(mask.bits.size for mask in masks) == int((binary > 0).sum())
    assert all(mask.bits.base is None for mask in masks)  # no view keeps the scene alive


@pytest.mark.parametrize("shape", [(1, 1), (5, 3)])
def test_nothing_has_no_region(shape: tuple[int, int]) -> None:
    assert components(np.zeros(shape, np.uint8), 1) == ([], 0)
    assert whole(np.zeros(shape, np.uint8)) is None


def test_whole_is_everything_in_one_mask() -> None:
    binary = np.zeros((9, 9), np.uint8)
    binary[2, 3], binary[7, 8] = 255, 7
    mask = whole(binary)
    assert mask is not None and (mask.x, mask.y, mask.bits.shape) == (3, 2, (6, 6))
    assert np.array_equal(mask.full(9, 9), binary > 0)
