"""Exported files with two and three levels of tiles: the contract, agreement with torch and with the NumPy twin, no children."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from fake_gpu import FakeDevice, FakeTensorRT

from apex_runtime.backends import ort_cuda, tensorrt_engine
from apex_runtime.backends.onnx_contract import read_onnx
from apex_runtime.backends.ort import OrtSession, graph_feeds
from apex_runtime.backends.tensorrt_builder import build_plans, optimisation_profile
from apex_runtime.backends.tensorrt_session import TensorRTSession
from apex_runtime.errors import UsageError
from apex_runtime.model_info import input_names, output_names
from apex_runtime.precision.convert import convert
from apex_runtime.precision.plan import Plan
from apex_runtime.routing.quadtree import select_levels
from apex_runtime.routing.selection import selection_keys
from apex_train.export.agreement import level_budgets
from apex_train.export.exporter import export_onnx
from apex_train.export.structure import FORBIDDEN_OPS, ExportError, all_nodes, check_structure
from apex_train.model.detector import ApexDetector
from apex_train.predictor import TorchSession

SIZE = (128, 256)
BUDGETS = {2: [(1, 0), (3, 0), (2, 5), (8, 32)], 3: [(1, 0, 0), (2, 3, 0), (1, 2, 3), (2, 8, 32)]}


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
def deep(request: pytest.FixtureRequest, detector: ApexDetector, tmp_path_factory) -> tuple[ApexDetector, Path]:
    torch.manual_seed(1)
    model = ApexDetector(detector.config.model_copy(update={"depth": request.param, "ratio": (1, 2, 4)[: request.param]}))
    model.load_state_dict(detector.state_dict(), strict=False)
    path = tmp_path_factory.mktemp("deep") / "model.onnx"
    report = export_onnx(model.eval(), SIZE, path)
    assert report.budgets == level_budgets(OrtSession(path).info.tiles) and report.budgets[0] == (1, *(0,) * (request.param - 1))
    assert report.worst["utilities"] <= 1e-4
    return model, path


def test_the_contract(deep):
    depth, file = deep[0].config.depth, read_onnx(deep[1])
    assert [value.name for value in file.model.graph.input] == list(input_names(depth))
    assert [value.name for value in file.model.graph.output] == list(output_names(depth))
    shapes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in file.model.graph.output}
    counts = [grid.count for grid in file.info.tiles.levels]
    assert [shapes["utilities" + (f"_{level}" if level else "")][1] for level in range(depth)] == counts
    assert shapes["tile_ids"] == shapes["tile_levels"] == ["batch", "k + k_1" if depth == 2 else "k + k_1 + k_2"]
    assert not FORBIDDEN_OPS & {node.op_type for node in all_nodes(file.model)}
    calls = [node.op_type for node in file.model.graph.node if node.domain == "apex"]
    assert calls.count("TilePack") == calls.count("TileUnpackFusion") == depth
    of_foveal = [
        node
        for node in file.model.graph.node
        if node.op_type == "Conv" and any("detector.foveal" in prop.value for prop in node.metadata_props)
    ]
    assert len(of_foveal) == sum(isinstance(module, torch.nn.Conv2d) for module in deep[0].foveal.modules()), "one call for all"


@pytest.mark.parametrize("which", range(4))
def test_torch_onnx_and_numpy_choose_alike(deep, which):
    model, path = deep
    session, tiles = OrtSession(path), BUDGETS[model.config.depth][which]
    grids = session.info.tiles.levels
    rng = np.random.default_rng(which)
    images = rng.integers(0, 256, (2, *SIZE, 3), dtype=np.uint8)
    bonus = rng.choice([-24, 0, 0, 1, 24], (2, session.info.tiles.count)).astype(np.float32)
    wanted, got = (side.run(images, tiles, bonus) for side in (TorchSession(model, *SIZE), session))
    for name in ("tile_ids", "tile_levels"):
        np.testing.assert_array_equal(got[name], wanted[name])
    names = ["utilities", "utilities_1", "utilities_2"][: len(grids)]
    keys = [selection_keys(got[name], bonus[:, grid.flat]) for name, grid in zip(names, grids, strict=True)]
    twin = select_levels(keys, tiles, grids[0].rows, grids[0].cols)
    np.testing.assert_array_equal(np.concatenate(twin, axis=1), got["tile_ids"])
    assert got["tile_levels"][0].tolist() == [level for level, count in enumerate(tiles) for _ in range(count)]
    np.testing.assert_allclose(got["scores"], wanted["scores"], atol=1e-4)
    np.testing.assert_allclose(got["mask_prototypes"], wanted["mask_prototypes"], atol=1e-3, rtol=1e-3)


def test_children_change_the_result_and_none_is_allowed(deep):
    session, image = OrtSession(deep[1]), np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), dtype=np.uint8)
    rest = [0] * (deep[0].config.depth - 2)
    bonus = np.zeros((1, session.info.tiles.count), np.float32)
    none, some = (session.run(image, (2, k, *rest), bonus) for k in (0, 5))
    assert none["tile_ids"].shape == (1, 2) and some["tile_ids"].shape == (1, 7)
    assert not np.allclose(none["mask_prototypes"], some["mask_prototypes"])


@pytest.mark.parametrize("tiles", [1, (0, 0, 0), (1, 5, 0), (1, -1, 0), (1, 4, 17), (99, 0, 0)])
def test_numbers_that_cannot_be_are_refused(deep, tiles):
    session = OrtSession(deep[1])
    tiles = tiles if isinstance(tiles, int) else tiles[: deep[0].config.depth]
    if tiles == (1, 4):
        return
    images, bonus = np.zeros((1, *SIZE, 3), np.uint8), np.zeros((1, session.info.tiles.count), np.float32)
    with pytest.raises(UsageError, match="tiles"):
        session.run(images, tiles, bonus)


def test_a_level_that_is_not_looked_at_is_found(deep):
    graph = onnx.load(deep[1])
    with pytest.raises(ExportError, match="names"):
        check_structure(graph, "topk", deep[0].config.depth - 1)
    graph.graph.node.remove(next(node for node in graph.graph.node if node.op_type == "TilePack"))
    with pytest.raises(ExportError):
        check_structure(graph, "topk", deep[0].config.depth)


def test_the_profile_allows_no_children(deep):
    ranges = {item.input: item for item in optimisation_profile(OrtSession(deep[1]).info, 4)}
    assert list(ranges) == list(input_names(deep[0].config.depth))
    assert (ranges["tiles"].minimum, ranges["tiles_1"].minimum, ranges["tiles_1"].is_value) == ((1,), (0,), True)
    finest = f"_{deep[0].config.depth - 1}"
    assert ranges["tiles" + finest].maximum == (32,) and ranges["tile_bonus" + finest].maximum == (4, 32)


def test_the_pass_fp16_knows_its_regions(deep, tmp_path: Path) -> None:
    depth, file = deep[0].config.depth, read_onnx(deep[1])
    pixels = np.random.default_rng(2).integers(0, 256, (1, *SIZE, 3), dtype=np.uint8)
    bonus = np.zeros((1, file.info.tiles.count), np.float32)
    most = BUDGETS[depth][-1]
    converted = convert(file.model, Plan(half=True), [graph_feeds(file.info, pixels, most, bonus)])
    routers = {item.node for item in converted.decisions if item.region == "router" and item.op == "MatMul"}
    assert len(routers) == 2 * depth, "two products in the router of every level"
    onnx.save(converted.model, tmp_path / "half.onnx")
    for tiles in BUDGETS[depth]:
        full, half = (OrtSession(path).run(pixels, tiles, bonus) for path in (deep[1], tmp_path / "half.onnx"))
        assert np.abs(full["mask_prototypes"] - half["mask_prototypes"]).max() < 0.02 * np.abs(full["mask_prototypes"]).max()
        np.testing.assert_array_equal(full["tile_ids"], half["tile_ids"])


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None,
    reason='TensorRT for RTX is not installed: pip install ".[rtx]"',
)
def test_tensorrt_for_rtx_builds_it(deep):
    (plan,) = build_plans(read_onnx(deep[1]), "tensorrt-rtx", [89], max_batch=2)
    assert len(plan.data) > 10_000


@pytest.mark.filterwarnings("ignore:Duplicate provider")
def test_sessions_for_gpus_take_one_budget_per_level(deep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: the TensorRT adapter on a fake one, the bound runs of ort-cuda on the CPU's memory."""
    reference, device = OrtSession(deep[1], 1), FakeDevice()
    library = FakeTensorRT(deep[1], device)
    (tmp_path / "plan").write_bytes(b"plan")
    monkeypatch.setattr(tensorrt_engine, "load_flavour", lambda _flavour: library)
    monkeypatch.setattr(ort_cuda, "PROVIDER", "CPUExecutionProvider")
    monkeypatch.setattr(ort_cuda, "_MEMORY", "cpu")
    sessions = [TensorRTSession(deep[1], tmp_path / "plan", "tensorrt", device), ort_cuda.OrtCudaSession(deep[1], threads=1)]
    rng = np.random.default_rng(0)
    for tiles in BUDGETS[deep[0].config.depth] * 2:
        images = rng.integers(0, 256, (2, *SIZE, 3), np.uint8)
        bonus = rng.normal(size=(2, reference.info.tiles.count)).astype(np.float32)
        wanted = reference.run(images, tiles, bonus)
        for session in sessions:
            found = session.run(images, tiles, bonus)
            assert list(found) == list(wanted) and found["tile_ids"].shape == (2, sum(tiles))
            for name, value in wanted.items():
                np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=f"{session.name} {name}")
