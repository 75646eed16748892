"""Levels of tiles in the network: the choice, what a level sees, what it leaves on the map, and what learns from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from apex_runtime.routing.quadtree import select_levels, sequence_ranks
from apex_runtime.routing.selection import selection_keys
from apex_train.model.config import ModelConfig
from apex_train.model.detector import ApexDetector
from apex_train.model.info import _pass_gflops, count_gflops, model_info
from apex_train.model.quadtree import choose, enlarged, in_context, reduced
from apex_train.model.router import selection_key


def build(depth: int, **changes) -> ApexDetector:
    torch.manual_seed(0)
    model = ApexDetector(ModelConfig(tile=32, prototypes=16, depth=depth, **changes)).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def picture(height: int, width: int, batch: int = 1) -> Tensor:
    return torch.from_numpy(np.random.default_rng(height).integers(0, 256, (batch, height, width, 3), dtype=np.uint8))


def everything(model: ApexDetector, height: int, width: int) -> tuple[tuple[int, ...], Tensor]:
    counts = model.config.counts(height, width)
    return counts, torch.zeros(1, sum(counts))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 1000))
def test_the_choice_equals_its_numpy_twin(rows: int, cols: int, depth: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = [int(rng.integers(1, rows * cols + 1))]
    for _ in range(1, depth):
        counts.append(int(rng.integers(0, 4 * counts[-1] + 1)))
    sizes = [rows * cols * 4**level for level in range(depth)]
    utility = [(rng.normal(size=(3, size)) * 6).round(2).astype(np.float32) for size in sizes]
    bonus = [rng.choice([-24.0, 0.0, 0.5, 24.0], (3, size)).astype(np.float32) for size in sizes]
    keys = [selection_key(torch.from_numpy(u), torch.from_numpy(b)) for u, b in zip(utility, bonus, strict=True)]
    ranks = [torch.from_numpy(rank).float() for rank in sequence_ranks(rows, cols, depth)]
    twin = select_levels([selection_keys(u, b) for u, b in zip(utility, bonus, strict=True)], counts, rows, cols)
    for ours, theirs in zip(choose(keys, counts, cols, ranks), twin, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs)


def test_pixels_are_averaged_and_cells_repeated() -> None:
    x = torch.randn(2, 3, 4, 8, 8)
    torch.testing.assert_close(reduced(x, 4).flatten(0, 1), F.avg_pool2d(x.flatten(0, 1), 4))
    torch.testing.assert_close(enlarged(x, 2).flatten(0, 1), F.interpolate(x.flatten(0, 1), scale_factor=2.0), rtol=0, atol=0)
    assert reduced(x, 1) is x and enlarged(x, 1) is x


def test_context_follows_the_sequence_and_not_the_levels() -> None:
    model = build(1)
    nn.init.normal_(model.context.film.weight, std=0.1)
    tiles, rank = torch.randn(2, 5, 64, 4, 4), torch.tensor([[3.0, 0, 9, 1, 7], [0.0, 1, 2, 3, 4]])
    order = torch.argsort(rank, dim=1)
    sorted_tiles = torch.stack([tiles[b, order[b]] for b in range(2)])
    expected = model.context(sorted_tiles)
    with torch.no_grad():
        got = in_context(model.context, tiles, rank)
    for b in range(2):
        torch.testing.assert_close(got[b, order[b]], expected[b])


@pytest.mark.parametrize("depth", [2, 3])
def test_all_children_leave_the_map_of_a_network_of_depth_1(depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the gate open: what the finest level saw, at full resolution, overrides all that was coarser."""
    deep, flat = build(depth), build(1)
    flat.load_state_dict({key: value for key, value in deep.state_dict().items() if not key.startswith("finer_")})
    merged = {}
    for name, model in (("deep", deep), ("flat", flat)):
        nn.init.constant_(model.gate.score.bias, 1e4)
        monkeypatch.setattr(model, "read", lambda m, p4, p5, name=name: merged.setdefault(name, m))
    with torch.no_grad():
        for model in (deep, flat):
            model(picture(128, 256), *everything(model, 128, 256))
    torch.testing.assert_close(merged["deep"], merged["flat"], rtol=1e-5, atol=1e-5)


def test_a_coarse_tile_sees_its_pixels_averaged() -> None:
    """One tile of level 0 of a picture equals the tile of depth 1 of the picture shrunk to half, before anything upsamples it."""
    deep, flat = build(2), build(1)
    flat.load_state_dict({key: value for key, value in deep.state_dict().items() if not key.startswith("finer_")})
    seen: dict[str, Tensor] = {}
    with torch.no_grad():
        image = deep.normalise(picture(128, 128))
        for name, model, pixels in (("deep", deep, image), ("flat", flat, F.avg_pool2d(image, 2))):

            def note(_module: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                seen[name] = inputs[0]

            model.foveal.register_forward_pre_hook(note)
            ids = [torch.arange(4)[None], torch.zeros(1, 0, dtype=torch.int64)][: model.config.depth]
            model.see(pixels, ids)
    torch.testing.assert_close(seen["deep"], seen["flat"])


@pytest.mark.parametrize("tiles", [(2, 3), (1, 4), (2, 0)])
def test_the_task_moves_the_router_of_every_level_with_tiles(tiles: tuple[int, int]) -> None:
    model = build(2).train()
    outputs = model(picture(128, 128, 2), tiles, torch.zeros(2, 4 + 16))
    outputs.heads.one.sum().backward()
    for router, count in zip((model.router, *model.finer_routers), tiles, strict=True):
        moved = [parameter.grad is not None and bool(parameter.grad.abs().sum() > 0) for parameter in router.parameters()]
        assert all(moved) if count else not any(moved)


def test_no_children_is_a_network_of_depth_1_on_coarser_tiles() -> None:
    model = build(3)
    with torch.no_grad():
        outputs = model(picture(128, 256), (2, 0, 0), torch.zeros(1, 2 + 8 + 32))
        finer_do_nothing = model(picture(128, 256), (2, 0, 0), torch.cat([torch.zeros(1, 2), torch.randn(1, 40)], 1))
    assert [level.tile_ids.shape[1] for level in outputs.levels] == [2, 0, 0]
    assert torch.equal(outputs.heads.one, finer_do_nothing.heads.one)


def test_the_bonus_forces_and_forbids_children() -> None:
    model = build(2)
    bonus = torch.zeros(1, 4 + 16)
    bonus[0, [3, 4 + 15, 4 + 10]] = 24.0
    bonus[0, 4 + 11] = -24.0
    with torch.no_grad():
        levels = model(picture(128, 128), (1, 3), bonus).levels
    assert levels[0].tile_ids.tolist() == [[3]] and set(levels[1].tile_ids[0].tolist()) == {15, 10, 14}


def test_a_tile_costs_the_same_on_every_level() -> None:
    model = build(3)
    cost = count_gflops(model, 256, 128)
    for tiles in ((2, 0, 0), (1, 3, 0), (2, 8, 32)):
        assert _pass_gflops(model, 256, 128, tiles) == pytest.approx(cost.base + sum(tiles) * cost.per_tile, rel=1e-3)


def test_nothing_but_a_gather_sees_the_whole_image_below_stride_4() -> None:
    """Rule 1, for every module with weights: tiles are recognised by their batch axis, B * K."""
    model, whole = build(2), []

    def record(_module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        if inputs[0].ndim == 4 and inputs[0].shape[0] == 1:
            whole.append(128 // inputs[0].shape[-2])

    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(record)
    with torch.no_grad():
        model(picture(128, 256), (3, 5), torch.zeros(1, 8 + 32))
    assert min(whole) == 4


def test_the_passport_and_the_config_name_the_levels() -> None:
    model = build(2, ratio=(1, 3))
    info = model_info(model, 128, 192)
    assert (info.tiles.depth, info.tiles.ratio, info.tiles.rows, info.tiles.cols) == (2, (1, 3), 2, 3)
    assert ModelConfig.model_validate(info.model) == model.config
    assert ModelConfig(depth=3).ratio == (1, 2, 4) and "ratio" in ModelConfig(depth=3).model_dump()
    assert not {"depth", "ratio"} & set(ModelConfig().model_dump())
    with pytest.raises(ValueError, match="not a multiple of the tile"):
        model_info(model, 96, 192)


def test_weights_of_one_level_begin_a_network_of_two() -> None:
    one, two = build(1), build(2)
    found = two.load_state_dict(one.state_dict(), strict=False)
    assert not found.unexpected_keys and all(key.startswith("finer_routers.") for key in found.missing_keys)
