import numpy as np
import pytest

from apex_runtime.data.roi_mask import RoiMask


@pytest.mark.parametrize(("x", "y", "pixels"), [(0, 0, 12), (7, 8, 6), (-2, -1, 4), (10, 0, 0), (0, -3, 0)])
def test_full_places_the_window_and_cuts_what_is_outside(x: int, y: int, pixels: int) -> None:
    mask = RoiMask(x, y, np.ones((3, 4), np.uint8))
    full = mask.full(10, 10)
    expected = np.zeros((10, 10), np.uint8)
    expected[max(y, 0) : max(y + 3, 0), max(x, 0) : max(x + 4, 0)] = 1
    np.testing.assert_array_equal(full, expected)
    assert full.sum() == pixels and mask.area == 12
