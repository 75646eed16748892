"""Labels for the router: what whole passes with and without a tile say, of the tiles that were meant to be asked about."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apex_train.config import LossConfig
from apex_train.data.loader import Batch
from apex_train.engine.oracle import sample_tiles, tile_gains
from apex_train.losses.compute import Matcher, detection_terms
from apex_train.model.config import ModelConfig
from apex_train.model.detector import ApexDetector
from apex_train.model.quadtree import children_of

FORCE, COUNT = 24.0, 12


@pytest.fixture(scope="module")
def model() -> ApexDetector:
    torch.manual_seed(0)
    return ApexDetector(ModelConfig(tile=32)).train()


@pytest.fixture(scope="module")
def batch() -> Batch:
    drawn = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (2, 96, 128, 3), dtype=torch.uint8, generator=drawn)
    boxes = torch.tensor([[[8.0, 8, 40, 32], [64, 32, 96, 80]], [[16, 60, 40, 90], [0, 0, 0, 0]]])
    labels = torch.tensor([[0, 0], [0, -1]])
    masks = torch.zeros(2, 2, 24, 32, dtype=torch.uint8)
    for b, g in ((0, 0), (0, 1), (1, 0)):
        x1, y1, x2, y2 = (boxes[b, g] / 4).int().tolist()
        masks[b, g, y1:y2, x1:x2] = 255
    return Batch(images, boxes, labels, masks, labels >= 0, torch.zeros(2, 24, 32, dtype=torch.uint8), [1, 2])


def with_tiles(model: ApexDetector, batch: Batch, choices: list[set[int]]) -> torch.Tensor:
    bonus = torch.full((len(choices), COUNT), -FORCE)
    for row, choice in zip(bonus, choices, strict=True):
        row[sorted(choice)] = FORCE
    return model(batch.images, len(choices[0]), bonus).heads


@torch.no_grad()
@pytest.mark.parametrize("tiles", [1, 3, 11, 12])
def test_a_gain_is_the_difference_of_two_whole_passes(model: ApexDetector, batch: Batch, tiles: int) -> None:
    config = LossConfig()
    ((ids, gains),) = tile_gains(model, batch, config, [tiles], 6, torch.rand(2, COUNT))
    model.eval()
    chosen = [set(row.tolist()) for row in model(batch.images, tiles, torch.zeros(2, COUNT)).tile_ids]
    asked = [set(row.tolist()) for row in ids]
    matcher = Matcher(with_tiles(model, batch, [a | b for a, b in zip(chosen, asked, strict=True)]), batch, config)
    before = detection_terms(with_tiles(model, batch, chosen), batch, matcher, config).loss_B
    for column in range(ids.shape[1]):
        toggled = [a ^ {int(i)} for a, i in zip(chosen, ids[:, column], strict=True)]
        if not toggled[0]:
            heads = model(batch.images, 1, torch.zeros(2, COUNT), with_peripheral=True).peripheral
        else:
            heads = with_tiles(model, batch, toggled)
        after = detection_terms(heads, batch, matcher, config).loss_B
        sign = 1 if len(toggled[0]) < tiles else -1
        assert torch.allclose(gains[:, column], sign * (after - before), atol=2e-4)
    assert gains.abs().max() > 1e-3
    model.train()


def test_asking_leaves_the_model_as_it_was(model: ApexDetector, batch: Batch) -> None:
    model.train()
    model.peripheral.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    tile_gains(model, batch, LossConfig(), [3], 4, torch.rand(2, COUNT))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    model.train()


@given(count=st.integers(2, 40), share=st.floats(0, 1), sampled=st.integers(2, 12), seed=st.integers(0, 999))
def test_half_of_those_asked_are_chosen_ones_and_the_uncertain_and_the_least_wanted_are_among_them(
    count: int, share: float, sampled: int, seed: int
) -> None:
    drawn = torch.Generator().manual_seed(seed)
    utilities = torch.randn(3, count, generator=drawn)
    tiles = max(1, min(count, round(share * count)))
    chosen = utilities.topk(tiles, dim=1).indices
    inside, outside = sample_tiles(utilities, chosen, torch.ones(3, count) > 0, sampled, torch.rand(3, count, generator=drawn))
    order = utilities.argsort(1, descending=True).tolist()
    assert inside.shape[1] + outside.shape[1] == min(sampled, count)
    for row in range(3):
        within, beyond = set(inside[row].tolist()), set(outside[row].tolist())
        assert within <= set(order[row][:tiles]) and beyond <= set(order[row][tiles:])
        assert len(within) == inside.shape[1] and len(beyond) == outside.shape[1]
        if within:
            assert order[row][tiles - 1] in within
        if beyond:
            assert order[row][tiles] in beyond or len(beyond) == 1
        if len(beyond) > 1:
            assert order[row][-1] in beyond
    if tiles >= sampled // 2 and count - tiles >= sampled - sampled // 2:
        assert inside.shape[1] == sampled // 2


@torch.no_grad()
def test_on_a_finer_level_children_of_the_chosen_are_asked_about(batch: Batch) -> None:
    """Depth 2: level 0 is judged without children, level 1 over the chosen parents, each against whole passes."""
    torch.manual_seed(0)
    model, config = ApexDetector(ModelConfig(tile=32, depth=2)), LossConfig()
    wide = Batch(**(vars(batch) | {"images": torch.nn.functional.pad(batch.images, (0, 0, 0, 0, 0, 32))}))
    wide = Batch(
        **(vars(wide) | {name: torch.nn.functional.pad(getattr(batch, name), (0, 0, 0, 8)) for name in ("masks", "ignore")})
    )
    (coarse_ids, coarse), (fine_ids, fine) = tile_gains(model, wide, config, [2, 3], 8, torch.rand(2, 4 + 16))
    model.eval()
    found = model(wide.images, [2, 3], torch.zeros(2, 20))
    parents, children = (level.tile_ids for level in found.levels)
    family = {(b, int(c)) for b in range(2) for p in parents[b] for c in children_of(p[None, None], 2)[0]}
    assert coarse.shape == coarse_ids.shape == (2, 4) and fine.shape == (2, 4) and fine.abs().max() > 0
    assert all((b, int(c)) in family for b in range(2) for c in fine_ids[b])

    def passed(first: torch.Tensor, second: list[set[int]]) -> torch.Tensor:
        bonus = torch.full((2, 20), -FORCE).scatter_(1, first, FORCE)
        for b, ids in enumerate(second):
            bonus[b, [4 + i for i in sorted(ids)]] = FORCE
        return model(wide.images, [first.shape[1], len(second[0])], bonus).heads

    chosen = [set(row.tolist()) for row in children]
    asked = [set(row.tolist()) for row in fine_ids]
    matcher = Matcher(passed(parents, [a | b for a, b in zip(chosen, asked, strict=True)]), wide, config)
    before = detection_terms(passed(parents, chosen), wide, matcher, config).loss_B
    for column in range(fine_ids.shape[1]):
        toggled = [a ^ {int(i)} for a, i in zip(chosen, fine_ids[:, column], strict=True)]
        after = detection_terms(passed(parents, toggled), wide, matcher, config).loss_B
        sign = 1 if len(toggled[0]) < 3 else -1
        assert torch.allclose(fine[:, column], sign * (after - before), atol=2e-4)
