import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apex_runtime.postprocess.letterbox import Letterbox, letterbox_image

sides = st.integers(1, 3000)


@settings(deadline=None, max_examples=100)
@given(sides, sides, st.sampled_from([(256, 256), (384, 1280), (1024, 512)]))
def test_content_fits_and_touches_one_side(height: int, width: int, size: tuple[int, int]) -> None:
    box = Letterbox(height, width, *size)
    rows, cols = box.content
    assert 1 <= rows <= size[0] and 1 <= cols <= size[1]
    assert rows == size[0] or cols == size[1]


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 700), st.integers(1, 700))
def test_boxes_come_back(height: int, width: int) -> None:
    box = Letterbox(height, width, 256, 384)
    vertical, horizontal = box.scales
    source = np.array([[0, 0, width, height], [width / 4, height / 3, width / 2, height]], np.float32)
    there = source * np.array([horizontal, vertical] * 2, np.float32)
    np.testing.assert_allclose(box.boxes_to_source(there), source, rtol=1e-5, atol=1e-3)


def test_boxes_are_cut_to_the_image() -> None:
    box = Letterbox(100, 200, 256, 256)
    np.testing.assert_array_equal(box.boxes_to_source(np.array([[-50, -50, 9999, 9999]])), [[0, 0, 200, 100]])
    assert box.boxes_to_source(np.zeros((0, 4))).shape == (0, 4)


@pytest.mark.parametrize("shape", [(100, 50), (256, 256), (900, 700), (1, 1), (1, 4000), (4000, 1)])
def test_image_is_top_left_on_grey(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 7, np.uint8)
    canvas, box = letterbox_image(image, 256, 256)
    rows, cols = box.content
    assert canvas.shape == (256, 256, 3) and canvas.dtype == np.uint8
    assert (canvas[:rows, :cols] == 7).all()
    assert (canvas[rows:] == 114).all() and (canvas[:, cols:] == 114).all()


def test_shrinking_averages_and_equal_size_is_a_copy() -> None:
    image = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    small, _ = letterbox_image(image, 128, 128)
    means = image.reshape(128, 4, 128, 4, 3).mean((1, 3))
    assert np.abs(small - means).max() <= 0.51
    same, _ = letterbox_image(image, 512, 512)
    np.testing.assert_array_equal(same, image)
