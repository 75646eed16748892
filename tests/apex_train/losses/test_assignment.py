"""Task-aligned assignment against a plain loop, and the promises that training relies on."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apex_train.losses.assignment import REACH, assign, reachable
from apex_train.losses.boxes import pairwise_iou
from apex_train.model.heads import anchor_grid

CENTRES, STRIDES = anchor_grid(64, 96)


def scene(seed: int, images: int = 2, objects: int = 5, classes: int = 3):
    """Random truth (some padded), boxes around every anchor, scores."""
    rng = torch.Generator().manual_seed(seed)
    corner = torch.rand(images, objects, 2, generator=rng) * torch.tensor([70.0, 40.0])
    truth = torch.cat([corner, corner + 4 + 30 * torch.rand(images, objects, 2, generator=rng)], -1)
    labels = torch.randint(-1, classes, (images, objects), generator=rng)
    reach = STRIDES[:, None] * (0.2 + 2 * torch.rand(images, len(CENTRES), 4, generator=rng))
    boxes = torch.cat([CENTRES - reach[..., :2], CENTRES + reach[..., 2:]], -1)
    return truth, labels, boxes, torch.rand(images, len(CENTRES), classes, generator=rng)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 4, 10]))
def test_equal_to_a_loop(seed: int, top: int) -> None:
    truth, labels, boxes, score = scene(seed)
    reach = reachable(truth, CENTRES, STRIDES)
    found = assign(score, boxes, truth, labels, reach, top)
    for b in range(len(truth)):
        iou = pairwise_iou(truth[b], boxes[b]).double().numpy()
        wanted: dict[int, list[int]] = {}
        metric = np.zeros_like(iou)
        for g in np.flatnonzero(labels[b].numpy() >= 0):
            s = score[b, :, labels[b, g]].double().numpy()
            metric[g] = np.where(reach[b, g], np.sqrt(s) * iou[g] ** 6 + 1e-9 * s + 1e-12, 0)
            for a in np.argsort(-metric[g], kind="stable")[:top]:
                if metric[g, a] > 0:
                    wanted.setdefault(int(a), []).append(int(g))
        owner = {a: max(gs, key=lambda g: (iou[g, a], -g)) for a, gs in wanted.items()}
        assert {a: int(o) for a, o in enumerate(found.object_BA[b]) if o >= 0} == owner
        for a, g in owner.items():
            mine = [other for other, o in owner.items() if o == g]
            best, most = max(metric[g, o] for o in mine), max(iou[g, o] for o in mine)
            assert abs(float(found.quality_BA[b, a]) - metric[g, a] / best * most) < 1e-4


def test_one_to_one_gives_every_separate_object_exactly_one_anchor() -> None:
    truth = torch.tensor([[[0.0, 0, 12, 12], [40, 8, 60, 30], [70, 40, 73, 43]]])
    _, _, boxes, score = scene(1, images=1, classes=1)
    found = assign(score, boxes, truth, torch.zeros(1, 3, dtype=torch.long), reachable(truth, CENTRES, STRIDES), 1)
    assert sorted(found.object_BA[found.positive_BA].tolist()) == [0, 1, 2]


def test_an_object_between_cell_centres_is_still_reachable() -> None:
    tiny = torch.tensor([[[7.0, 7.0, 9.0, 9.0]]])  # its box holds no stride-8 centre (4, 12, 20, ...)
    reach = reachable(tiny, CENTRES, STRIDES)[0, 0]
    assert reach.any() and REACH > 0.5


def test_an_image_without_objects_is_all_background() -> None:
    _, _, boxes, score = scene(2)
    nothing = torch.zeros(2, 1, 4), torch.full((2, 1), -1)
    found = assign(score, boxes, *nothing, reachable(nothing[0], CENTRES, STRIDES), 10)
    assert not found.positive_BA.any() and not found.quality_BA.any()
