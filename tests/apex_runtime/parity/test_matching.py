"""Matching against plain loops, against the best assignment there is, and overlaps against pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_detections import SIDE, made
from pycocotools import mask as coco_mask
from scipy.optimize import linear_sum_assignment

from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.detections import Detections
from apex_runtime.parity.matching import Pair, box_iou, mask_iou, match_detections

# Few places and few scores, so that overlaps, ties and contests for one partner are common.
row = st.tuples(
    st.sampled_from([0.3, 0.5, 0.5, 0.9]),
    st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(3, 9), st.integers(3, 9)).map(
        lambda n: (2 * n[0], 2 * n[1], 2 * n[0] + 2 * n[2], 2 * n[1] + 2 * n[3])
    ),
    st.integers(0, 1),
)
side = st.lists(row, max_size=7).map(lambda rows: made(sorted(rows, key=lambda each: -each[0])))


def reference_iou(first: Detections, second: Detections) -> np.ndarray:
    """By pycocotools; 0 between classes."""
    if not len(first) or not len(second):
        return np.zeros((len(first), len(second)))
    xywh = [np.concatenate([d.boxes[:, :2], d.boxes[:, 2:] - d.boxes[:, :2]], 1).astype(np.float64) for d in (first, second)]
    return coco_mask.iou(*xywh, [0] * len(second)) * (first.labels[:, None] == second.labels)


def by_loops(first: Detections, second: Detections, least: float) -> list[tuple[int, int]]:
    iou_nm, taken, pairs = reference_iou(first, second), set(), []
    for i in sorted(range(len(first)), key=lambda i: (-first.scores[i], i)):
        free = [j for j in range(len(second)) if j not in taken and iou_nm[i, j] >= least and iou_nm[i, j] > 0]
        if free:
            best = max(free, key=lambda j: (round(iou_nm[i, j], 9), -j))
            taken.add(best)
            pairs.append((i, best))
    return pairs


@given(side, side, st.sampled_from([0.1, 0.5, 0.75]))
def test_pairs_are_those_of_plain_loops(first: Detections, second: Detections, least: float) -> None:
    found = match_detections(first, second, least)
    assert [(pair.reference, pair.candidate) for pair in found] == by_loops(first, second, least)
    iou_nm = reference_iou(first, second)
    assert all(pair.box_iou == pytest.approx(iou_nm[pair.reference, pair.candidate]) for pair in found)


@given(side, side)
def test_between_half_and_all_of_what_the_best_assignment_pairs(first: Detections, second: Detections) -> None:
    possible = reference_iou(first, second) >= 0.5
    rows, columns = linear_sum_assignment(possible, maximize=True)
    most, found = int(possible[rows, columns].sum()), match_detections(first, second, 0.5)
    assert most / 2 <= len(found) <= most
    assert len({pair.reference for pair in found}) == len({pair.candidate for pair in found}) == len(found)
    if possible.sum(0).max(initial=0) <= 1 and possible.sum(1).max(initial=0) <= 1:
        assert len(found) == most


@given(side)
def test_a_side_matches_itself_entirely(own: Detections) -> None:
    found = match_detections(own, own, 0.5)
    assert sorted(pair.reference for pair in found) == list(range(len(own)))
    assert all(pair.box_iou == pytest.approx(1) for pair in found)


def test_the_better_scored_one_takes_what_two_could_have() -> None:
    first = made([(0.9, (0, 0, 10, 10), 0), (0.8, (1, 0, 11, 10), 0)])
    second = made([(0.7, (1, 0, 11, 10), 0), (0.6, (4, 0, 14, 10), 0)])
    assert [pair[:2] for pair in match_detections(first, second, 0.5)] == [(0, 0), (1, 1)]
    assert [pair[:2] for pair in match_detections(first, second, 0.6)] == [(0, 0)]


def test_another_class_is_another_object() -> None:
    first, second = made([(0.9, (0, 0, 10, 10), 0)]), made([(0.9, (0, 0, 10, 10), 1)])
    assert match_detections(first, second, 0.5) == []
    assert match_detections(first, first, 0.5) == [Pair(0, 0, pytest.approx(1.0))]


def test_boxes_without_an_area_overlap_nothing() -> None:
    boxes = np.array([[3, 3, 3, 9], [0, 0, 10, 10]], np.float32)
    assert box_iou(boxes, boxes).tolist() == [[0, 0], [0, 1]]


window = st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 8), st.integers(1, 8), st.integers(0, 999))


@given(window, window)
def test_masks_overlap_as_on_the_whole_image(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    masks = [
        RoiMask(x, y, np.random.default_rng(seed).integers(0, 2, (h, w), dtype=np.uint8)) for x, y, h, w, seed in (first, second)
    ]
    a, b = (mask.full(SIDE, SIDE).astype(bool) for mask in masks)
    union = (a | b).sum()
    assert mask_iou(*masks) == (pytest.approx((a & b).sum() / union) if union else 1.0)
