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


def grown(box: torch.Tensor, kind: str, target: torch.Tensor) -> torch.Tensor:
    """The gradient of the loss at ``box``."""
    box = box.clone().requires_grad_()
    box_loss(box, target, kind, (400, 400)).sum().backward()
    return box.grad


@settings(max_examples=60, deadline=None)
@given(boxes, boxes, st.sampled_from(KINDS), st.sampled_from([(1, 0), (0, 1), (1, 1), (-1, 1), (-1, -1), (1, -1)]))
def test_boxes_apart_are_drawn_together_by_all_but_iou(p: np.ndarray, t: np.ndarray, kind: str, way: tuple[int, int]) -> None:
    """Moving a far box as a whole towards the truth lowers the loss; the gradient of IoU is zero there, which is why it is not
    the default."""
    predicted, target = torch.tensor(p)[None], torch.tensor(t)[None] + 200.0 * torch.tensor([*way, *way], dtype=torch.float64)
    gradient = grown(predicted, kind, target)
    towards = (target[:, :2] + target[:, 2:] - predicted[:, :2] - predicted[:, 2:]).repeat(1, 2)
    slope = float((gradient * towards).sum())
    assert slope == 0 if kind == "iou" else slope < -1e-4
    if kind != "iou":
        step = 1e-3 * towards
        assert float(box_loss(predicted + step, target, kind, (400, 400))) < float(box_loss(predicted, target, kind, (400, 400)))


@settings(max_examples=25, deadline=None)
@given(boxes, boxes, st.sampled_from(KINDS))
def test_gradients_are_those_of_finite_differences(p: np.ndarray, t: np.ndarray, kind: str) -> None:
    """Of CIoU: with its trade-off factor held still, as its authors take the gradient."""
    predicted, target = torch.tensor(p)[None] + 0.137, torch.tensor(t)[None]
    frozen = 1 - float(pairwise_iou(predicted, target))

    def aspect(box: torch.Tensor) -> torch.Tensor:
        return 4 / math.pi**2 * (angle(target) - angle(box)).square()

    def angle(box: torch.Tensor) -> torch.Tensor:
        return torch.atan((box[:, 2] - box[:, 0]) / (box[:, 3] - box[:, 1] + 1e-7))

    v = float(aspect(predicted))

    def loss(box: torch.Tensor) -> torch.Tensor:
        if kind != "ciou":
            return box_loss(box, target, kind, (100, 130))
        return box_loss(box, target, "diou", (100, 130)) + v / (v + frozen + 1e-7) * aspect(box)

    step = 1e-5
    numeric = torch.stack([(loss(predicted + step * e) - loss(predicted - step * e)) / (2 * step) for e in torch.eye(4).double()])
    box = predicted.clone().requires_grad_()
    box_loss(box, target, kind, (100, 130)).sum().backward()
    near_kink = ((predicted[0, :, None] - target[0]).abs() < 2 * step).any()  # where max and min change sides
    assert near_kink or torch.allclose(box.grad[0], numeric[:, 0], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_without_area_give_finite_values(kind: str) -> None:
    point, line, box = [5.0, 5, 5, 5], [2.0, 3, 9, 3], [1.0, 1, 4, 8]
    predicted = torch.tensor([point, point, line, line, box, box, line], requires_grad=True)
    target = torch.tensor([point, box, line, box, point, line, point])
    loss = box_loss(predicted, target, kind, (10, 10))
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(predicted.grad).all()


def test_pairwise_iou_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    a, b = (np.sort(rng.uniform(0, 50, (2, n, 2, 2)), axis=2).reshape(2, n, 4) for n in (5, 7))
    ours = pairwise_iou(torch.tensor(a), torch.tensor(b)).numpy()
    for i, x, y in np.ndindex(ours.shape):
        assert ours[i, x, y] == pytest.approx(1 - reference(a[i, x], b[i, y], "iou", (1, 1)), abs=1e-5)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown box loss"):
        box_loss(torch.rand(1, 4), torch.rand(1, 4), "siou", (1, 1))
