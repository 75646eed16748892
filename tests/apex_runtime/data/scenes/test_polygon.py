from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from apex_runtime.data.clipping import clip_ring
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.data.scenes.polygon import area, clip_part, rasterise, ring_area
from apex_runtime.data.scenes.windows import Window

HEIGHT, WIDTH = 60, 80
SUB = 8  # samples along a side of a pixel


def star(seed: int, cx: float, cy: float, low: float, high: float) -> np.ndarray:
    """A ring around a centre that does not cross itself."""
    rng = np.random.default_rng(seed)
    angles = (np.arange(9) + rng.uniform(0, 0.8, 9)) * 2 * np.pi / 9
    return np.array([cx, cy]) + rng.uniform(low, high, (9, 1)) * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def inside(ring: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Even-odd rule at points, in float64."""
    found = np.zeros(x.shape, bool)
    for (x1, y1), (x2, y2) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        if y1 != y2:
            found ^= ((y1 > y) != (y2 > y)) & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return found


def coverage(parts: list[list[np.ndarray]], height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """The share of each pixel that the parts cover, [height,width]."""
    y, x = (np.mgrid[: height * SUB, : width * SUB] + 0.5) / SUB
    found = np.zeros(x.shape, bool)
    for outer, *holes in parts:
        found |= inside(outer, x, y) & ~np.any([inside(hole, x, y) for hole in holes] or [np.zeros(x.shape, bool)], axis=0)
    return found.reshape(height, SUB, width, SUB).mean(axis=(1, 3))


def full(mask: RoiMask | None, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.zeros((height, width), np.uint8) if mask is None else mask.full(height, width)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(-20, WIDTH + 20), st.floats(-20, HEIGHT + 20), st.floats(12, 30))
def test_pixels_and_area_agree_with_sampling(seed: int, cx: float, cy: float, radius: float) -> None:
    parts = [[star(seed, cx, cy, radius * 0.8, radius), star(seed + 1, cx, cy, radius * 0.3, radius * 0.5)]]
    share, bits = coverage(parts), full(rasterise(parts, HEIGHT, WIDTH))
    # Away from the border every pixel is certain: those wholly in or out, as are all of their neighbours.
    padded = np.pad(share, 1, mode="edge")
    around = np.stack([padded[i : i + HEIGHT, j : j + WIDTH] for i in range(3) for j in range(3)])
    assert bits[(around == 1).all(axis=0)].all() and not bits[(around == 0).all(axis=0)].any()
    assert area([clip_part(parts[0], HEIGHT, WIDTH)]) == pytest.approx(share.sum(), abs=6)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.floats(-30, 110), st.floats(-30, 90), st.floats(5, 60))
def test_what_is_clipped_lies_inside_and_its_four_quarters_make_the_whole(seed: int, cx: float, cy: float, radius: float) -> None:
    ring = star(seed, cx, cy, radius * 0.3, radius)
    clipped = clip_ring(ring, 0, 0, WIDTH, HEIGHT)
    if len(clipped):
        assert clipped.min() >= 0 and (clipped <= [WIDTH, HEIGHT]).all()
    left, right, top, bottom = -200.0, 300.0, -200.0, 300.0
    pieces = [(left, top, cx, cy), (cx, top, right, cy), (left, cy, cx, bottom), (cx, cy, right, bottom)]
    assert sum(ring_area(clip_ring(ring, *piece)) for piece in pieces) == pytest.approx(ring_area(ring), rel=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats(-20, 100), st.floats(-20, 80)), min_size=1, max_size=3))
def test_without_holes_the_pixels_are_those_of_pycocotools(places: list[tuple[int, float, float]]) -> None:
    rings = [star(seed, cx, cy, 4, 30) for seed, cx, cy in places]
    encoded = coco_mask.frPyObjects([ring.ravel().tolist() for ring in rings], HEIGHT, WIDTH)
    found = full(rasterise([[ring] for ring in rings], HEIGHT, WIDTH))
    assert np.array_equal(found, coco_mask.decode(coco_mask.merge(encoded)))


def test_huge_and_far_polygons_cost_what_the_window_does() -> None:
    huge = np.array([[-1e5, -1e5], [1e5, -1e5], [1e5, 1e5], [-1e5, 1e5]])
    assert full(rasterise([[huge]], HEIGHT, WIDTH)).all()
    assert rasterise([[huge + 1e7]], HEIGHT, WIDTH) is None
    window = Window(50_000, 40_000, 30, 20)
    hole = np.array([[50_010.0, 40_005], [50_020, 40_005], [50_020, 40_015], [50_010, 40_015]])
    found = full(rasterise([[huge, hole]], 90_000, 90_000, window), 20, 30)
    expected = np.ones((20, 30), np.uint8)
    expected[5:15, 10:20] = 0
    assert np.array_equal(found, expected)


def test_a_part_in_the_hole_of_another_stays() -> None:
    def square(low: float, high: float) -> np.ndarray:
        return np.array([[low, low], [high, low], [high, high], [low, high]])

    bits = full(rasterise([[square(0, 40), square(10, 30)], [square(15, 25)]], HEIGHT, WIDTH))
    assert int(bits.sum()) == 1600 - 400 + 100 and rasterise([], HEIGHT, WIDTH) is None
    assert rasterise([[square(0, 40), square(0, 40)]], HEIGHT, WIDTH) is None
