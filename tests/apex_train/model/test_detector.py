"""The rules of DESIGN section 3 that a network can break without anybody noticing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from apex_runtime.routing.hilbert import hilbert_rank
from apex_runtime.routing.selection import select_tiles as select_numpy
from apex_runtime.routing.selection import selection_keys
from apex_train.model.config import MASK_STRIDE, ModelConfig
from apex_train.model.decode import top_detections
from apex_train.model.detector import ApexDetector, chosen_cells
from apex_train.model.heads import anchor_grid
from apex_train.model.info import count_gflops, model_info
from apex_train.model.router import select_tiles, selection_key

RADIUS = 56  # receptive radius of the nano foveal stream, 55 pixels, as a multiple of 8


def build(**changes) -> ApexDetector:
    torch.manual_seed(0)
    model = ApexDetector(ModelConfig(**changes)).eval()
    for module in model.modules():  # statistics as after some training, or every fault of the norms would hide
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    nn.init.normal_(model.context.film.weight, std=0.1)
    return model


@pytest.fixture(scope="module")
def model() -> ApexDetector:
    return build()


def picture(height: int, width: int, batch: int = 1) -> Tensor:
    return torch.from_numpy(np.random.default_rng(height).integers(0, 256, (batch, height, width, 3), dtype=np.uint8))


def test_nano_is_small_and_its_widths_are_multiples_of_16(model: ApexDetector) -> None:
    assert sum(parameter.numel() for parameter in model.parameters()) <= 1_500_000
    for size in ("nano", "small", "base"):
        config = ModelConfig(size=size)
        assert all(width % 16 == 0 for width in (*config.peripheral_widths, *config.foveal_widths, config.features))


def test_no_convolution_sees_the_whole_image_below_stride_4(model: ApexDetector) -> None:
    """Rule 1. Tiles are recognised by their batch axis, B * K."""
    height, width, tiles = 192, 128, 5
    whole: list[tuple[str, int]] = []

    def record(name: str):
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if inputs[0].ndim == 4 and inputs[0].shape[0] == 1:
                whole.append((name, height // output.shape[-2]))
                assert inputs[0].shape[-2] <= height // 4, name

        return hook

    hooks = [m.register_forward_hook(record(n)) for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    with torch.no_grad():
        model(picture(height, width), tiles, torch.zeros(1, 6))
    for hook in hooks:
        hook.remove()
    assert whole and min(stride for _, stride in whole) == 8


def test_cost_grows_by_the_same_amount_per_tile(model: ApexDetector) -> None:
    cost = count_gflops(model, 256, 192)
    from apex_train.model.info import _pass_gflops

    for tiles in (3, 12):
        assert _pass_gflops(model, 256, 192, tiles) == pytest.approx(cost.base + tiles * cost.per_tile, rel=1e-3)
    assert cost.per_tile * 12 > 2 * cost.base


@pytest.mark.parametrize("size", [(192, 128), (64, 256)])
def test_tiles_equal_a_dense_pass_when_the_halo_covers_the_receptive_field(size: tuple[int, int]) -> None:
    model = build(halo=RADIUS)
    height, width = size
    n_tiles = (height // 64) * (width // 64)
    ids = torch.randperm(n_tiles)[None]
    with torch.no_grad():
        image = model.normalise(picture(height, width))
        from apex_plugins.tile_pack.torch_op import tile_pack

        tiles = model.foveal(tile_pack(image, ids, torch.zeros_like(ids), 64, RADIUS).flatten(0, 1))
        dense = model.foveal(F.pad(image, (RADIUS,) * 4))
    expected = chosen_cells(dense, ids, 8)[0]
    assert (tiles - expected).abs().max() <= 1e-5 * dense.abs().max()


def test_a_small_halo_differs_only_near_the_tile_border() -> None:
    model = build(halo=8)
    with torch.no_grad():
        image = model.normalise(picture(192, 192))
        from apex_plugins.tile_pack.torch_op import tile_pack

        middle = torch.tensor([[4]])
        tile = model.foveal(tile_pack(image, middle, torch.zeros_like(middle), 64, 8).flatten(0, 1))
        dense = chosen_cells(model.foveal(F.pad(image, (8,) * 4)), middle, 8)[0]
    gap = (tile - dense).abs().amax((0, 1))
    assert gap[0].max() > 1e-4  # the test can see a seam
    assert gap[3:5, 3:5].max() < gap[0].max()


def test_gating_every_tile_off_is_the_peripheral_line(model: ApexDetector) -> None:
    images, bonus = picture(128, 128), torch.zeros(1, 4)
    with torch.no_grad():
        outputs = model(images, 2, bonus, with_peripheral=True)
        gate = model.gate.score.bias.clone()
        model.gate.score.bias.fill_(-1e4)
        shut = model(images, 2, bonus)
        model.gate.score.bias.copy_(gate)
    assert torch.equal(shut.heads.one, outputs.peripheral.one)
    assert not torch.equal(outputs.heads.one, outputs.peripheral.one)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000), st.data())
def test_selection_equals_its_numpy_twin(rows: int, cols: int, seed: int, data) -> None:
    count = rows * cols
    tiles = data.draw(st.integers(1, count))
    rng = np.random.default_rng(seed)
    utility = (rng.normal(size=(3, count)) * 6).round(2).astype(np.float32)  # rounding makes near ties
    bonus = rng.choice([-24.0, 0.0, 0.5, 24.0], (3, count)).astype(np.float32)
    key = selection_key(torch.from_numpy(utility), torch.from_numpy(bonus))
    np.testing.assert_array_equal(key.numpy(), selection_keys(utility, bonus))
    rank = hilbert_rank(rows, cols)
    ours = select_tiles(key, tiles, torch.from_numpy(rank).float())
    np.testing.assert_array_equal(ours.numpy(), select_numpy(selection_keys(utility, bonus), tiles, rank))


def test_the_bonus_forces_and_forbids(model: ApexDetector) -> None:
    bonus = torch.zeros(1, 6)
    bonus[0, [1, 4]], bonus[0, 2] = 24.0, -24.0
    with torch.no_grad():
        ids = model(picture(128, 192), 5, bonus).tile_ids[0].tolist()
    assert {1, 4} <= set(ids) and 2 not in ids


def test_training_and_inference_compute_the_same_numbers(model: ApexDetector) -> None:
    """The straight-through factor is 1 going forward; norms are frozen here, for their batch statistics differ by design."""
    images, bonus = picture(128, 128, 2), torch.zeros(2, 4)
    with torch.no_grad():
        served = model(images, 2, bonus)
        model.training = True  # the gate's switch alone
        trained = model(images, 2, bonus)
        model.training = False
    torch.testing.assert_close(trained.heads.one, served.heads.one, rtol=0, atol=1e-5)


def test_the_task_moves_the_router() -> None:
    model = build().train()
    outputs = model(picture(128, 128), 2, torch.zeros(1, 4))
    outputs.heads.one.sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.router.parameters())


def test_top_detections_against_numpy(model: ApexDetector) -> None:
    with torch.no_grad():
        heads = model(picture(128, 64, 2), 1, torch.zeros(2, 2)).heads
    found = {name: value.numpy() for name, value in top_detections(heads, 128, 64, 40).items()}
    logits, ltrb = heads.one.double().numpy(), heads.ltrb.double().numpy()
    centres, strides = (item.double().numpy() for item in anchor_grid(128, 64))
    for b in range(2):
        order = np.argsort(-logits[b].max(-1), kind="stable")[:40]
        np.testing.assert_array_equal(found["candidate_ids"][b], order)
        np.testing.assert_allclose(found["scores"][b], 1 / (1 + np.exp(-logits[b].max(-1)[order])), rtol=1e-6)
        corners = np.concatenate([centres - ltrb[b, :, :2] * strides[:, None], centres + ltrb[b, :, 2:] * strides[:, None]], 1)
        np.testing.assert_allclose(found["boxes"][b], corners[order], atol=1e-4)
    assert found["mask_prototypes"].shape == (2, 32, 128 // MASK_STRIDE, 64 // MASK_STRIDE)


def test_the_passport_tells_what_the_network_is(model: ApexDetector) -> None:
    info = model_info(model, 128, 192, "ab")
    assert (info.tiles.rows, info.tiles.cols, info.tiles.count) == (2, 3, 6)
    assert info.gflops.base > 0 and info.gflops.per_tile > 0
    assert ModelConfig.model_validate(info.model) == model.config
    with pytest.raises(ValueError, match="not a multiple of the tile"):
        model_info(model, 100, 192)


@pytest.mark.parametrize(
    "wrong",
    [{"tile": 48}, {"halo": 12}, {"classes": ()}, {"size": "huge"}, {"depth": 4}, {"depth": 2, "ratio": (1,)}, {"ratio": (1, 2)}],
)
def test_a_config_that_cannot_work_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError):
        ModelConfig(**wrong)
