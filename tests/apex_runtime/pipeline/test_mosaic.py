"""The picture of a scene put together of its windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apex_runtime.data.scenes.windows import windows
from apex_runtime.pipeline import annotate
from apex_runtime.pipeline.annotate import Picture
from apex_runtime.pipeline.mosaic import Mosaic


@pytest.fixture(autouse=True, scope="module")
def small_pictures() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(annotate, "MIN_SIDE", 90)
        patch.setattr(annotate, "MAX_SIDE", 150)
        yield


def _of(image: np.ndarray, side: int, overlap: int) -> Picture:
    height, width = image.shape[:2]
    mosaic = Mosaic(height, width)
    for window in windows(height, width, side, overlap):
        mosaic.add(window.x, window.y, image[window.y : window.y + window.height, window.x : window.x + window.width])
    return mosaic.picture()


_SIDES = st.integers(40, 400)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_SIDES, _SIDES, st.integers(16, 80), st.integers(0, 15))
def test_the_windows_leave_no_gap_and_the_scales_are_those_of_a_picture(height: int, width: int, side: int, overlap: int) -> None:
    image = np.full((height, width, 3), 200, np.uint8)
    made, whole = _of(image, side, overlap), Picture.of(image)
    assert made.canvas.shape == whole.canvas.shape
    assert (made.scale_y, made.scale_x) == pytest.approx((whole.scale_y, whole.scale_x))
    assert (made.canvas == 200).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(90, 150), st.integers(90, 150), st.integers(16, 80), st.integers(0, 1 << 30))
def test_at_the_size_of_the_scene_it_is_the_scene(height: int, width: int, side: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    np.testing.assert_array_equal(_of(image, side, 8).canvas, image)


@settings(deadline=None, max_examples=40)
@given(_SIDES, _SIDES, st.integers(30, 80))
def test_reduced_or_enlarged_things_stay_in_their_place(height: int, width: int, side: int) -> None:
    """A ramp: every pixel of the picture says where it is from."""
    ramp = np.add.outer(np.linspace(0, 120, height), np.linspace(0, 120, width))
    image = np.repeat(np.rint(ramp).astype(np.uint8)[:, :, None], 3, axis=2)
    made, whole = _of(image, side, 10).canvas.astype(int), Picture.of(image).canvas.astype(int)
    step = 240 / min(height, width) + 240 / min(made.shape[:2])  # of one pixel here and there
    assert np.abs(made - whole).max() <= 2 * step + 2
