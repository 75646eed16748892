from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apex_runtime.data.scenes.scene import open_scene
from apex_runtime.data.scenes.windows import Window, windows
from apex_runtime.errors import UsageError


def test_every_side_to_2000_is_covered_by_the_fewest_windows() -> None:
    for size, overlap in ((7, 3), (100, 30), (256, 0), (640, 128)):
        for side in range(1, 2001):
            row = windows(1, side, size, overlap)
            starts, length = [window.x for window in row], min(size, side)
            assert starts[0] == 0 and starts[-1] + length == side
            assert {window.width for window in row} == {length} and {window.y for window in row} == {0}
            steps = [after - before for before, after in pairwise(starts)]
            assert all(0 < step <= size - overlap for step in steps)
            assert not steps or max(steps) - min(steps) <= 1
            # One less could not reach the end, at the least overlap.
            assert len(row) == 1 or length + (len(row) - 2) * (size - overlap) < side


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(40, 700), st.floats(0, 0.9))
def test_windows_are_the_grid_of_their_rows_and_columns_row_by_row(height: int, width: int, size: int, share: float) -> None:
    found = windows(height, width, size, int(share * size))
    rows, columns = (sorted({getattr(window, axis) for window in found}) for axis in ("y", "x"))
    assert [(window.y, window.x) for window in found] == [(y, x) for y in rows for x in columns]
    assert rows[-1] + found[0].height == height and columns[-1] + found[0].width == width
    assert columns == [window.x for window in windows(1, width, size, int(share * size))]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(150, 900), st.floats(0, 0.6))
def test_every_pixel_is_read_from_its_offset(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, size: int, share: float
) -> None:
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x % 256, y % 256, x // 256 + 16 * (y // 256)], axis=2).astype(np.uint8)  # the place of each pixel
    path = tmp_path_factory.mktemp("scene") / "a.bmp"
    assert cv2.imwrite(str(path), pixels[:, :, ::-1])
    seen = np.zeros((height, width), bool)
    scene = open_scene(path)
    for window in windows(scene.height, scene.width, size, int(share * size)):
        rows, columns = slice(window.y, window.y + window.height), slice(window.x, window.x + window.width)
        assert np.array_equal(scene.read(window).pixels, pixels[rows, columns])
        seen[rows, columns] = True
    assert seen.all()


@pytest.mark.parametrize("wrong", [(0, 5, 5, 0), (5, 0, 5, 0), (5, 5, 0, 0), (5, 5, 5, 5), (5, 5, 5, -1)])
def test_what_cannot_cover_is_refused(wrong: tuple[int, int, int, int]) -> None:
    with pytest.raises(UsageError):
        windows(*wrong)


def test_a_scene_smaller_than_the_overlap_is_one_window() -> None:
    assert windows(20, 30, 1024, 128) == [Window(0, 0, 30, 20)]
