"""Box losses against formulas written out in NumPy float64, and their gradients where IoU has none."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apex_train.losses.boxes import box_loss, pairwise_iou

KINDS = ("iou", "giou", "diou", "ciou", "mpdiou")


def reference(p: np.ndarray, t: np.ndarray, kind: str, size: tuple[int, int]) -> float:
    inter = max(0.0, min(p[2], t[2]) - max(p[0], t[0])) * max(0.0, min(p[3], t[3]) - max(p[1], t[1]))
    area = [(b[2] - b[0]) * (b[3] - b[1]) for b in (p, t)]
    iou = inter / (sum(area) - inter)
    hull_w, hull_h = max(p[2], t[2]) - min(p[0], t[0]), max(p[3], t[3]) - min(p[1], t[1])
    if kind == "iou":
        return 1 - iou
    if kind == "giou":
        return 1 - (iou - (hull_w * hull_h - (sum(area) - inter)) / (hull_w * hull_h))
    if kind == "mpdiou":
        corners = (p[0] - t[0]) ** 2 + (p[1] - t[1]) ** 2 + (p[2] - t[2]) ** 2 + (p[3] - t[3]) ** 2
        return 1 - (iou - corners / (size[0] ** 2 + size[1] ** 2))
    centre = ((p[0] + p[2] - t[0] - t[2]) / 2) ** 2 + ((p[1] + p[3] - t[1] - t[3]) / 2) ** 2
    diou = 1 - iou + centre / (hull_w**2 + hull_h**2)
    if kind == "diou":
        return diou
    angle = [math.atan((b[2] - b[0]) / (b[3] - b[1])) for b in (t, p)]
    v = 4 / math.pi**2 * (angle[0] - angle[1]) ** 2
    return diou + v * v / (1 - iou + v) if v else diou


boxes = st.tuples(st.floats(0, 80), st.floats(0, 80), st.floats(1, 50), st.floats(1, 50)).map(
    lambda b: np.array([b[0], b[1], b[0] + b[2], b[1] + b[3]])
)


@settings(max_examples=60, deadline=None)
@given(boxes, boxes, st.sampled_from(KINDS))
def test_equal_to_the_formula(p: np.ndarray, t: np.ndarray, kind: str) -> None:
    ours = box_loss(torch.tensor(p)[None], torch.tensor(t)[None], kind, (100, 130))
    assert float(ours) == pytest.approx(reference(p, t, kind, (100, 130)), abs=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "iou"])
def test_far_boxes_are_pulled_together(kind: str) -> None:
    box = torch.tensor([[0.0, 0.0, 4.0, 4.0]], requires_grad=True)
    box_loss(box, torch.tensor([[90.0, 90.0, 99.0, 99.0]]), kind, (100, 100)).sum().backward()
    assert (box.grad[0, 2:] < 0).all()  # descending moves the near corner towards the target


def test_pairwise_iou_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    a, b = (np.sort(rng.uniform(0, 50, (2, n, 2, 2)), axis=2).reshape(2, n, 4) for n in (5, 7))
    ours = pairwise_iou(torch.tensor(a), torch.tensor(b)).numpy()
    for i, x, y in np.ndindex(ours.shape):
        assert ours[i, x, y] == pytest.approx(1 - reference(a[i, x], b[i, y], "iou", (1, 1)), abs=1e-5)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown box loss"):
        box_loss(torch.rand(1, 4), torch.rand(1, 4), "siou", (1, 1))
