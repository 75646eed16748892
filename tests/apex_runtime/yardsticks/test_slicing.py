"""Windows cover the image as SAHI's do, and what two of them both saw is counted once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bright_cells import write_bright_cells
from hypothesis import given
from hypothesis import strategies as st

from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.detections import Detections
from apex_runtime.postprocess.letterbox import Letterbox
from apex_runtime.yardsticks.slicing import SlicedPredictor, Slicing, joined, suppressed
from apex_runtime.yardsticks.yardstick import Yardstick

ACROSS, WITHIN = Slicing(100), Slicing(100, within=True)


@given(
    shape=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    side=st.sampled_from([64, 128, 192]),
    overlap=st.sampled_from([0.0, 0.2, 0.5]),
    zoom=st.sampled_from([0.5, 1.0, 2.0]),
    size=st.sampled_from([None, (192, 320)]),
)
def test_windows_cover_the_image_and_do_not_leave_it(shape, side, overlap, zoom, size) -> None:
    height, width = shape
    seen = np.zeros(shape, int)
    windows = Slicing(side, overlap, size=size, zoom=zoom).windows(height, width)
    for top, left, bottom, right in windows:
        assert 0 <= top < bottom <= height and 0 <= left < right <= width
        seen[top:bottom, left:right] += 1
    assert seen.all() and len(set(windows)) == len(windows)


@given(length=st.integers(1, 700), side=st.integers(16, 300), overlap=st.sampled_from([0.0, 0.1, 0.2, 0.33, 0.5]))
def test_windows_begin_where_sahi_has_them(length: int, side: int, overlap: float) -> None:
    """Its rule along one axis, told as it does it: step by step, the one that would leave the image moved back."""
    starts, end = [], 0
    while end < length:
        start = end - int(overlap * side) if starts else 0
        end = min(start + side, length)
        starts.append(max(0, end - side))
    found = Slicing(side, overlap).windows(length, side)
    assert [top for top, _, _, _ in found] == starts


def test_a_side_is_in_pixels_of_the_image_or_of_an_engines_input() -> None:
    assert Slicing(192).windows(192, 320) == [(0, 0, 192, 192), (0, 128, 192, 320)]
    large = Slicing(96, size=(192, 320)).windows(384, 640)  # the letterbox halves the image: a window is of 192 of its pixels
    assert {(bottom - top, right - left) for top, left, bottom, right in large} == {(192, 192)}
    assert sorted({left for _, left, _, _ in large}) == [0, 154, 308, 448]
    assert len(Slicing(96, size=(192, 320), zoom=2.0).windows(384, 640)) > 3 * len(large)


def test_the_whole_image_is_one_window_more_unless_it_is_the_only_one() -> None:
    assert Slicing(192, whole=True).windows(192, 320)[-1] == (0, 0, 192, 320)
    assert Slicing(192, whole=True).windows(100, 120) == [(0, 0, 100, 120)]


def found(boxes, scores, labels=None) -> Detections:
    boxes = np.array(boxes, np.float32)
    masks = [RoiMask(int(x1), int(y1), np.ones((int(y2 - y1), int(x2 - x1)), np.uint8)) for x1, y1, x2, y2 in boxes]
    labels = np.array(labels or [0] * len(boxes))
    nothing = np.zeros(0, np.int64)
    return Detections(boxes, np.array(scores, np.float32), labels, labels + 1, masks, nothing, nothing, 0, Letterbox(1, 1, 1, 1))


def test_what_two_windows_saw_is_joined_in_pixels_of_the_image() -> None:
    left = found([[80, 10, 100, 30], [5, 5, 15, 15]], [0.6, 0.3])  # the first is cut by the window's border
    right = found([[0, 10, 26, 30]], [0.9])  # the same object, whole
    both = joined([left, right], [(0, 0), (80, 0)], Letterbox(60, 200, 192, 320), ACROSS, max_detections=10)
    np.testing.assert_array_equal(both.boxes, [[80, 10, 106, 30], [5, 5, 15, 15]])
    np.testing.assert_allclose(both.scores, [0.9, 0.3])
    assert (both.masks[0].x, both.masks[0].y, both.masks[0].bits.shape) == (80, 10, (20, 26))
    assert len(joined([left, right], [(0, 0), (80, 0)], Letterbox(60, 200, 192, 320), ACROSS, max_detections=1)) == 1


def test_only_better_ones_of_the_same_class_from_another_window_suppress() -> None:
    boxes = np.array([[0, 0, 10, 10]] * 2 + [[0, 0, 4, 10]], np.float32)
    scores, labels = np.array([0.5, 0.8, 0.2]), np.array([0, 0, 0])
    assert suppressed(boxes, scores, labels, np.array([0, 1, 2]), ACROSS).tolist() == [1]
    assert suppressed(boxes, scores, labels, np.array([0, 0, 0]), ACROSS).tolist() == [1, 0, 2]
    assert suppressed(boxes, scores, labels, np.array([0, 0, 0]), WITHIN).tolist() == [1]
    assert suppressed(boxes, scores, np.array([0, 1, 2]), np.array([0, 1, 2]), WITHIN).tolist() == [1, 0, 2]
    apart = boxes + np.array([[0], [6], [30]], np.float32)  # 4 of 10 pixels are shared: less than half
    assert suppressed(apart, scores, labels, np.array([0, 1, 2]), ACROSS).tolist() == [1, 0, 2]
    assert suppressed(boxes[:0], scores[:0], labels[:0], labels[:0], ACROSS).tolist() == []


def share(a: np.ndarray, b: np.ndarray, match: str) -> float:
    sizes = [max(0.0, min(a[axis + 2], b[axis + 2]) - max(a[axis], b[axis])) for axis in (0, 1)]
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    common = sizes[0] * sizes[1]
    return common / (min(areas) if match == "ios" else sum(areas) - common)


@pytest.mark.parametrize("match", ["ios", "iou"])
@pytest.mark.parametrize("within", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_is_greedy_suppression_by_the_asked_measure(match: str, within: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 60, (70, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(10, 40, (70, 2))], axis=1)
    scores, labels, window = rng.permutation(70) / 70, rng.integers(0, 2, 70), rng.integers(0, 4, 70)
    kept: list[int] = []
    for place in np.argsort(-scores):
        rivals = [other for other in kept if labels[other] == labels[place] and (within or window[other] != window[place])]
        if all(share(boxes[other], boxes[place], match) < 0.4 for other in rivals):
            kept.append(int(place))
    assert 5 < len(kept) < 65
    slicing = Slicing(100, match=match, threshold=0.4, within=within)
    assert suppressed(boxes, scores, labels, window, slicing).tolist() == kept


def test_a_described_slicing_is_the_predictor_sliced(tmp_path: Path, nuclei_fixture: Path) -> None:
    """Every window is one call; the boxes of the middle window are those of a call with its pixels, moved."""
    path = write_bright_cells(tmp_path, side=64)
    plain = Yardstick(path, threads=1)
    path.write_text(path.read_text() + "slicing: {side: 64, overlap: 0.0, whole: false, within: false}\n")
    sliced = Yardstick(path, threads=1)
    image = np.random.default_rng(0).integers(0, 256, (192, 192, 3), dtype=np.uint8)
    (everything,) = sliced.predict([image], min_score=0.3)
    (middle,) = plain.predict([image[64:128, 64:128]], min_score=0.3)
    assert len(middle) > 5 and len(everything) > 5 * len(middle), "windows do not overlap: nothing competes"
    boxes = {tuple(box) for box in everything.boxes.tolist()}
    assert {tuple(box) for box in (middle.boxes + 64).tolist()} <= boxes
    assert "sliced side 64 overlap 0 ios 0.5" in sliced.facts.postprocessing and "sliced" not in plain.facts.postprocessing
    again = SlicedPredictor(plain, Slicing(64, 0.0)).predict([image], min_score=0.3)[0]
    np.testing.assert_array_equal(again.boxes, everything.boxes)
    assert sliced.info == plain.info and len(sliced.graph_milliseconds) == 1
