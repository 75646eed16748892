"""Windows cover the image, and what two of them both saw is counted once."""

from __future__ import annotations

import numpy as np
import pytest
from dense import densify
from hypothesis import given
from hypothesis import strategies as st
from sliced import SlicedPredictor, Slicing, joined, suppressed

from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.detections import Detections
from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.postprocess.letterbox import Letterbox
from apex_train.predictor import TorchSession


@given(
    shape=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    side=st.sampled_from([64, 128, 192]),
    overlap=st.sampled_from([0.0, 0.2, 0.5]),
    zoom=st.sampled_from([0.5, 1.0, 2.0]),
)
def test_windows_cover_the_image_and_do_not_leave_it(shape, side, overlap, zoom) -> None:
    height, width = shape
    slicing = Slicing((192, 320), side, overlap, zoom)
    seen = np.zeros(shape, int)
    windows = slicing.windows(height, width)
    for top, left, bottom, right in windows:
        assert 0 <= top < bottom <= height and 0 <= left < right <= width
        seen[top:bottom, left:right] += 1
    assert seen.all() and len(set(windows)) == len(windows)


def test_windows_are_of_the_engines_scale_and_overlap() -> None:
    assert Slicing((192, 320), 192).windows(192, 320) == [(0, 0, 192, 192), (0, 128, 192, 320)]
    large = Slicing((192, 320), 96).windows(384, 640)  # the letterbox halves the image: a window is of 192 of its pixels
    assert {(bottom - top, right - left) for top, left, bottom, right in large} == {(192, 192)}
    assert sorted({left for _, left, _, _ in large}) == [0, 154, 308, 448]
    assert len(Slicing((192, 320), 96, zoom=2.0).windows(384, 640)) > 3 * len(large)


def found(boxes, scores, labels=None) -> Detections:
    boxes = np.array(boxes, np.float32)
    masks = [RoiMask(int(x1), int(y1), np.ones((int(y2 - y1), int(x2 - x1)), np.uint8)) for x1, y1, x2, y2 in boxes]
    labels = np.array(labels or [0] * len(boxes))
    nothing = np.zeros(0, np.int64)
    return Detections(boxes, np.array(scores, np.float32), labels, labels + 1, masks, nothing, nothing, 0, Letterbox(1, 1, 1, 1))


def test_what_two_windows_saw_is_joined_in_pixels_of_the_image() -> None:
    left = found([[80, 10, 100, 30], [5, 5, 15, 15]], [0.6, 0.3])  # the first is cut by the window's border
    right = found([[0, 10, 26, 30]], [0.9])  # the same object, whole
    both = joined([left, right], [(0, 0), (80, 0)], Letterbox(60, 200, 192, 320), max_detections=10)
    np.testing.assert_array_equal(both.boxes, [[80, 10, 106, 30], [5, 5, 15, 15]])
    np.testing.assert_allclose(both.scores, [0.9, 0.3])
    assert (both.masks[0].x, both.masks[0].y, both.masks[0].bits.shape) == (80, 10, (20, 26))
    assert len(joined([left, right], [(0, 0), (80, 0)], Letterbox(60, 200, 192, 320), max_detections=1)) == 1


def test_only_better_ones_of_the_same_class_from_another_window_suppress() -> None:
    boxes = np.array([[0, 0, 10, 10]] * 2 + [[0, 0, 4, 10]], np.float32)
    scores, labels = np.array([0.5, 0.8, 0.2]), np.array([0, 0, 0])
    assert suppressed(boxes, scores, labels, np.array([0, 1, 2]), 0.5).tolist() == [1]
    assert suppressed(boxes, scores, labels, np.array([0, 0, 0]), 0.5).tolist() == [1, 0, 2]
    assert suppressed(boxes, scores, np.array([0, 1, 2]), np.array([0, 1, 2]), 0.5).tolist() == [1, 0, 2]
    apart = boxes + np.array([[0], [6], [30]], np.float32)  # 4 of 10 pixels are shared: less than half
    assert suppressed(apart, scores, labels, np.array([0, 1, 2]), 0.5).tolist() == [1, 0, 2]
    assert suppressed(boxes[:0], scores[:0], labels[:0], labels[:0], 0.5).tolist() == []


def test_one_window_over_everything_is_the_dense_pass(model, dataset) -> None:
    session = TorchSession(densify(model), 256, 256)
    image = dataset.read_image(0)
    sliced = SlicedPredictor(session, Slicing((256, 256), 256)).detect(image, 0.001, 50)
    (dense,) = Predictor(session).predict([image], 1.0, max_detections=50)
    assert len(dense) == 50
    np.testing.assert_array_equal(sliced.boxes, dense.boxes)
    assert all(np.array_equal(a.bits, b.bits) for a, b in zip(sliced.masks, dense.masks, strict=True))


@pytest.mark.parametrize("side", [128])
def test_several_windows_see_every_part_of_the_image(model, dataset, side: int) -> None:
    session = TorchSession(densify(model), side, side)
    image = dataset.read_image(0)
    found = SlicedPredictor(session, Slicing((256, 256), side)).detect(image, 0.001, 500)
    centres = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    quadrants = {(bool(x > image.shape[1] / 2), bool(y > image.shape[0] / 2)) for x, y in centres}
    assert len(quadrants) == 4 and (np.diff(found.scores) <= 0).all()
