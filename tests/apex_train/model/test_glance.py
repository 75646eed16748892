"""A glance says what whole forward passes say, whatever tiles are looked at."""

from __future__ import annotations

import pytest
import torch

from apex_train.model.config import ModelConfig
from apex_train.model.detector import ApexDetector, HeadOutputs
from apex_train.model.glance import Glance

FORCE = 24.0


@pytest.fixture(scope="module")
def model() -> ApexDetector:
    torch.manual_seed(0)
    network = ApexDetector(ModelConfig(tile=32)).eval()
    with torch.no_grad():
        network.context.film.weight.normal_(std=0.2)  # tiles that talk to each other, or their order would not matter
    return network


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(0, 256, (2, 96, 128, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def same(a: HeadOutputs, b: HeadOutputs) -> bool:
    return all(torch.allclose(x, y, atol=1e-5) for x, y in zip(vars(a).values(), vars(b).values(), strict=True) if x is not None)


@torch.inference_mode()
@pytest.mark.parametrize("tiles", [1, 2, 5, 12])
def test_any_choice_in_any_order_reads_as_a_forward_pass_with_these_tiles(
    model: ApexDetector, images: torch.Tensor, tiles: int
) -> None:
    view = Glance(model, images)
    view.choose([1])
    view.see([torch.stack([torch.randperm(12, generator=torch.Generator().manual_seed(i)) for i in range(2)])])
    for seed in range(3):
        drawn = torch.Generator().manual_seed(10 + seed)
        ids = torch.stack([torch.randperm(12, generator=drawn)[:tiles] for _ in range(2)])
        bonus = torch.full((2, 12), -FORCE).scatter_(1, ids, FORCE)
        assert same(view.read([ids]), model(images, tiles, bonus).heads)


@torch.inference_mode()
def test_no_tiles_is_the_peripheral_pass_and_its_own_choice_is_the_models(model: ApexDetector, images: torch.Tensor) -> None:
    view = Glance(model, images)
    outputs = model(images, 3, torch.zeros(2, 12), with_peripheral=True)
    assert outputs.peripheral is not None
    assert same(view.read([torch.zeros(2, 0, dtype=torch.int64)]), outputs.peripheral)
    assert torch.equal(view.choose([3])[0].tile_ids, outputs.tile_ids)
