"""OpenCV's NMS, as it is called here, against the definition in float64."""

from __future__ import annotations

import numpy as np
import pytest

from apex_runtime.yardsticks.decode import Candidates
from apex_runtime.yardsticks.description import Suppression
from apex_runtime.yardsticks.suppression import suppress


def iou(a: np.ndarray, b: np.ndarray) -> float:
    x, y = (min(a[axis + 2], b[axis + 2]) - max(a[axis], b[axis]) for axis in (0, 1))
    common = max(0.0, x) * max(0.0, y)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def naive(boxes: np.ndarray, labels: np.ndarray, limit: float, per_class: bool) -> list[int]:
    """Positions of what stays; the boxes come best first."""
    kept: list[int] = []
    for place in range(len(boxes)):
        rivals = [other for other in kept if labels[other] == labels[place] or not per_class]
        if all(iou(boxes[other], boxes[place]) <= limit for other in rivals):
            kept.append(place)
    return kept


@pytest.mark.parametrize("per_class", [True, False])
@pytest.mark.parametrize("limit", [0.3, 0.7])
@pytest.mark.parametrize("seed", range(5))
def test_is_greedy_nms(per_class: bool, limit: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-5, 15, (80, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(15, 30, (80, 2))], axis=1).astype(np.float32)
    scores, labels = np.sort(rng.uniform(0.01, 1, 80))[::-1].astype(np.float32), rng.integers(0, 3, 80)
    found = suppress(Candidates(boxes, scores, labels, np.arange(80) + 100), Suppression(iou=limit, per_class=per_class))
    wanted = naive(boxes.astype(np.float64), labels, limit, per_class)
    assert 3 < len(wanted) < 80
    assert found.places.tolist() == [place + 100 for place in wanted]
    np.testing.assert_array_equal(found.boxes, boxes[wanted])


def test_nothing_stays_nothing() -> None:
    none = Candidates(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert len(suppress(none, Suppression(iou=0.5)).scores) == 0
