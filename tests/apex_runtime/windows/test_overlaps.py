"""Which windows and boxes meet, against comparing all of them."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.data.scenes.windows import windows
from apex_runtime.windows.overlaps import _neighbours, overlap, shared_pixels, touching
from apex_runtime.windows.seams import _seen_twice

_SIDE = st.integers(1, 200)


@settings(deadline=None)
@given(_SIDE, _SIDE, st.integers(2, 60), st.integers(2, 60), st.data())
def test_windows_that_share_pixels(height: int, width: int, high: int, wide: int, data: st.DataObject) -> None:
    cut = windows(height, width, (high, wide), data.draw(st.integers(0, min(high, wide) - 1).map(lambda value: value // 2)))
    shown = [
        {(y, x) for y in (w.y, w.y + w.height - 1) for x in range(w.x, w.x + w.width)}
        | {(y, x) for x in (w.x, w.x + w.width - 1) for y in range(w.y, w.y + w.height)}
        for w in cut[:40]
    ]  # windows of one size that overlap also share pixels of their borders
    expected = [(i, j) for i, j in itertools.combinations(range(len(shown)), 2) if shown[i] & shown[j]]
    assert [pair for pair in _neighbours(cut) if max(pair) < 40] == expected


def _boxes(generator: np.random.Generator, count: int) -> np.ndarray:
    corners = generator.integers(-5, 200, (count, 2))
    return np.concatenate([corners, corners + generator.integers(1, 90, (count, 2))], axis=1).astype(float)


@settings(deadline=None)
@given(_SIDE, _SIDE, st.integers(2, 60), st.integers(0, 1 << 30))
def test_boxes_that_two_windows_show(height: int, width: int, side: int, seed: int) -> None:
    cut, boxes = windows(height, width, side, side // 3), _boxes(np.random.default_rng(seed), 30)
    counts = [
        sum(x1 < w.x + w.width and x2 > w.x and y1 < w.y + w.height and y2 > w.y for w in cut)
        for x1, y1, x2, y2 in boxes.tolist()
    ]
    assert _seen_twice(boxes, cut).tolist() == [count > 1 for count in counts]


@settings(deadline=None)
@given(st.integers(0, 1 << 30), st.integers(0, 40))
def test_boxes_that_touch(seed: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    boxes, chosen = _boxes(generator, count) * 5, generator.random(count) < 0.5
    expected = []
    for i, j in itertools.combinations(range(count), 2):
        a, b = boxes[i], boxes[j]
        if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] and (chosen[i] or chosen[j]):
            expected.append((i, j))
    assert touching(boxes, chosen).tolist() == [list(pair) for pair in expected]


@settings(deadline=None)
@given(st.integers(0, 1 << 30))
def test_pixels_in_common_are_those_of_the_whole_masks(seed: int) -> None:
    generator = np.random.default_rng(seed)
    masks = [
        RoiMask(*generator.integers(0, 20, 2).tolist(), generator.integers(0, 2, generator.integers(1, 20, 2), dtype=np.uint8))
        for _mask in range(2)
    ]
    x1, y1, x2, y2 = [*generator.integers(0, 20, 2).tolist(), *generator.integers(10, 40, 2).tolist()]
    first, second = (mask.full(40, 40)[y1:y2, x1:x2] for mask in masks)
    shared = np.count_nonzero(first & second)
    assert shared_pixels(*masks, (x1, y1, x2, y2)) == shared
    union = np.count_nonzero(first | second)
    assert overlap(int(first.sum()) + int(second.sum()), shared) == (shared / union if union else 0)
