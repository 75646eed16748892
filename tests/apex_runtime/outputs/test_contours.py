"""Outlines against the rasteriser that training reads polygons with, and against OpenCV's count of regions."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.data.scenes.polygon import rasterise
from apex_runtime.outputs.contours import outlines

_BITS = arrays.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 1))


@settings(max_examples=300, deadline=None)
@given(_BITS, st.integers(0, 9), st.integers(0, 9))
def test_rasterised_again_they_are_the_same_mask(bits: np.ndarray, x: int, y: int) -> None:
    found = outlines(RoiMask(x, y, bits))
    again = np.zeros((30, 30), np.uint8)
    for part in found:
        mask = rasterise([part], 30, 30)
        assert mask is not None
        assert not (again & mask.full(30, 30)).any()
        again |= mask.full(30, 30)
    assert np.array_equal(again, RoiMask(x, y, bits).full(30, 30))


@settings(max_examples=200, deadline=None)
@given(_BITS)
def test_regions_and_areas_are_those_of_opencv(bits: np.ndarray) -> None:
    count, _labels, stats, _centres = cv2.connectedComponentsWithStats(bits, connectivity=4)
    found = outlines(RoiMask(0, 0, bits))
    assert len(found) == count - 1
    areas = sorted(round(sum(_area(ring) for ring in part)) for part in found)
    assert areas == sorted(stats[1:, cv2.CC_STAT_AREA].tolist())


def test_corners_only() -> None:
    assert [ring.tolist() for ring in outlines(RoiMask(5, 7, np.ones((2, 3), np.uint8)))[0]] == [[[5, 7], [8, 7], [8, 9], [5, 9]]]


def _area(ring: np.ndarray) -> float:
    x, y = ring.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
