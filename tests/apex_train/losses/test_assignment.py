"""Task-aligned assignment against a plain loop, and the promises that training relies on."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apex_train.losses.assignment import LEAST, REACH, assign, reachable
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
        if top > 1:
            find_homes(owner, metric)
        assert {a: int(o) for a, o in enumerate(found.object_BA[b]) if o >= 0} == owner
        for a, g in owner.items():
            mine = [other for other, o in owner.items() if o == g]
            best, most = max(metric[g, o] for o in mine), max(LEAST, *(iou[g, o] for o in mine))
            assert abs(float(found.quality_BA[b, a]) - metric[g, a] / best * most) < 1e-4


def find_homes(owner: dict[int, int], metric: np.ndarray) -> None:
    """Objects that lost everything: their best free anchor, else the best one of an object that has others."""
    for g in [g for g in range(len(metric)) if metric[g].any() and g not in owner.values()]:
        reach = np.flatnonzero(metric[g] > 0)
        free = [a for a in reach if a not in owner]
        spare = [a for a in reach if a in owner and sum(o == owner[a] for o in owner.values()) > 1]
        if free or spare:
            owner[int(max(free or spare, key=lambda a: (metric[g, a], -a)))] = g


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.booleans())
def test_no_object_in_reach_of_a_centre_stays_without_an_anchor(seed: int, objects: int, alike: bool) -> None:
    """In the one-to-many branch, unless all that it reaches are the only anchors of others; also for boxes on top of each
    other. One-to-one gives an object one anchor at most."""
    truth, labels, boxes, score = scene(seed, objects=objects)
    boxes = boxes - 40 * (seed % 2)  # half of the time the predictions are far off, which is when teaching is needed most
    if alike:
        truth = truth[:, :1].expand_as(truth).contiguous()
    reach = reachable(truth, CENTRES, STRIDES)
    many, one = (assign(score, boxes, truth, labels, reach, top) for top in (10, 1))
    for b, g in (labels >= 0).nonzero().tolist():
        assert reach[b, g].any()
        owners = many.object_BA[b][reach[b, g]].tolist()
        held = [(many.object_BA[b] == owner).sum() for owner in owners]
        assert g in owners or all(owner >= 0 and count == 1 for owner, count in zip(owners, held, strict=True))
        assert g in owners or len(owners) < objects
        assert (one.object_BA[b] == g).sum() <= 1
    assert (many.quality_BA[many.positive_BA] > 0).all() and not many.quality_BA[~many.positive_BA].any()


def test_of_equals_the_first_counts() -> None:
    """Anchors and objects that are the same in everything: the result does not hang on the order a device works in."""
    truth = torch.tensor([[[0.0, 0, 64, 64], [0, 0, 64, 64]]])
    boxes = torch.tensor([0.0, 0, 64, 64]).expand(1, len(CENTRES), 4)
    equal = boxes, truth, torch.zeros(1, 2, dtype=torch.long), reachable(truth, CENTRES, STRIDES)
    for top in (1, 3):
        found = assign(torch.full((1, len(CENTRES), 1), 0.5), *equal, top)
        inside = torch.nonzero(equal[3][0, 0]).flatten().tolist()
        first, next_ = inside[:top], inside[top]
        assert torch.nonzero(found.object_BA[0] == 0).flatten().tolist() == first
        assert torch.nonzero(found.object_BA[0] == 1).flatten().tolist() == ([next_] if top > 1 else [])


def test_the_levels_are_shared_by_size() -> None:
    """All levels in one call: what is shorter than a cell of a coarse level is not asked of it, what is long may be."""
    centres, strides = anchor_grid(256, 256)
    truth = torch.tensor([[[12.0, 12, 20, 20], [28, 28, 228, 228]]])  # the small one lies on a centre of strides 8, 16 and 32
    reach = reachable(truth, centres, strides)[0]
    assert set(strides[reach[0]].tolist()) == {8.0} and set(strides[reach[1]].tolist()) == {8.0, 16.0, 32.0}
    boxes = torch.cat([centres - 100, centres + 100], -1)[None]  # boxes as large as the large one, whatever the level
    found = assign(torch.full((1, len(centres), 1), 0.5), boxes, truth, torch.zeros(1, 2, dtype=torch.long), reach[None], 200)
    assert set(strides[found.object_BA[0] == 0].tolist()) == {8.0}
    assert set(strides[found.object_BA[0] == 1].tolist()) == {8.0, 16.0, 32.0}


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
