"""A Triton repository: its configurations, its graph, and a request through it, against the engine itself.

There is no Triton here: ``tests/support/triton_stub.py`` stands for what its documents say that it does.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from pycocotools import mask as coco_mask
from tiny_model import tiny_info, write_tiny_model

from apex_runtime.backends.onnx_contract import read_onnx
from apex_runtime.backends.ort import graph_feeds
from apex_runtime.bundle.build import build_bundle
from apex_runtime.engine import Engine, load
from apex_runtime.errors import BundleError, ModelError, UsageError
from apex_runtime.model_info import TileInfo
from apex_runtime.pipeline.predictor import prepare_image
from apex_runtime.routing.budget import parse_budget
from apex_runtime.serving.settings import ServingSettings
from apex_runtime.serving.triton_graph import slots_of, with_tile_slots

NAME = "blobs"


def scene(seed: int = 0, height: int = 90, width: int = 128) -> np.ndarray:
    """Bright discs, uint8 [h,w,3]."""
    draw = np.random.default_rng(seed)
    image = draw.integers(0, 40, (height, width, 3), np.uint8)
    for _ in range(5):
        centre = (int(draw.integers(10, width - 10)), int(draw.integers(10, height - 10)))
        cv2.circle(image, centre, int(draw.integers(4, 9)), (255, 255, 255), -1)
    return image


def encoded(image: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", image[:, :, ::-1])[1])


def text(value: str | bytes) -> np.ndarray:
    return np.array([[value if isinstance(value, bytes) else value.encode()]], object)


# The graph: no package of Triton is needed.


def test_the_length_of_the_slots_is_the_number_of_tiles(tiny_onnx: Path) -> None:
    file = read_onnx(tiny_onnx)
    changed = onnxruntime.InferenceSession(with_tile_slots(file.model, file.info).SerializeToString())
    plain = onnxruntime.InferenceSession(str(tiny_onnx))
    assert [value.name for value in changed.get_inputs()] == ["images", "tile_slots", "tile_bonus"]
    for budget in ("1", "5", "1.0"):
        prepared = [prepare_image(scene(seed, 128), parse_budget(budget), file.info) for seed in (1, 2)]
        images, bonus = np.stack([item.image_HW3 for item in prepared]), np.stack([item.bonus_N for item in prepared])
        feeds = graph_feeds(file.info, images, prepared[0].tiles, bonus)
        expected = plain.run(None, feeds)
        slots = slots_of(file.info, prepared[0].tiles)
        stacked = {name: np.repeat(array, 2, 0) for name, array in slots.items()}  # as a batcher stacks two requests
        found = changed.run(None, {"images": images, "tile_bonus": bonus} | stacked)
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_array_equal(one, other)


def test_slots_of_finer_levels_may_stand_for_no_tiles() -> None:
    one = tiny_info()
    info = one.model_copy(update={"tiles": TileInfo(tile=32, halo=0, rows=2, cols=2, depth=2, ratio=(0.5, 0.5))})
    names = ("tiles", "tiles_1")
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [1]) for name in names]
    nodes = [helper.make_node("Identity", [name], [f"seen_{name}"]) for name in names]
    outputs = [helper.make_tensor_value_info(f"seen_{name}", onnx.TensorProto.INT64, [1]) for name in names]
    opsets = [helper.make_opsetid("", 20)]
    model = helper.make_model(helper.make_graph(nodes, "levels", values, outputs), opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(with_tile_slots(model, info).SerializeToString())
    for counts in ((3, 0), (4, 7)):
        slots = slots_of(info, counts)
        assert min(array.size for array in slots.values()) > 0, "Triton takes no empty inputs"
        assert [int(value[0]) for value in session.run(None, slots)] == list(counts)


# The repository.


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triton")
    build_bundle(write_tiny_model(folder / "model.onnx", classes=2), "ort-cpu", folder / "bundle")
    return folder / "bundle"


@pytest.fixture(scope="module")
def engine(bundle: Path) -> Engine:
    return load(bundle, threads=1)


@pytest.fixture
def export():
    """``export(bundle, folder)``; skipped without Triton's definitions."""
    pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed: the extra serve")
    from apex_runtime.serving.triton_config import TritonOptions
    from apex_runtime.serving.triton_export import export_triton

    def run(bundle: Path, folder: Path, **settings: object) -> Path:
        export_triton(bundle, folder, NAME, ServingSettings(**settings), TritonOptions())  # type: ignore[arg-type]
        return folder

    return run


@pytest.fixture
def stub() -> Iterator[object]:
    import triton_stub

    with triton_stub.python_backend_utils():
        yield triton_stub


@pytest.mark.parametrize("budget", [None, "3", "25%", "1.0"])
def test_a_request_through_the_ensemble_is_answered_as_the_engine_does(
    export, stub, bundle: Path, engine: Engine, tmp_path: Path, budget: str | None
) -> None:
    ensemble = stub.Ensemble(export(bundle, tmp_path, budget="0.5"), NAME)
    image = scene()
    asked = {} if budget is None else {"budget": text(budget)}
    expected = engine.predict_one(image, budget or "0.5")
    assert len(expected) > 0 and len(expected.tile_ids) < 17
    for inputs in ({"image": text(encoded(image))}, {"pixels": image[None]}):
        found = ensemble.infer(inputs | asked)
        np.testing.assert_allclose(found["boxes"][0], expected.boxes, rtol=1e-5)
        np.testing.assert_allclose(found["scores"][0], expected.scores, rtol=1e-5)
        np.testing.assert_array_equal(found["labels"][0], expected.labels)
        np.testing.assert_array_equal(found["category_ids"][0], expected.category_ids)
        assert found["spent"].tolist() == [[expected.budget.spent]]
        assert found["class_names"][0].tolist() == [expected.names[label].encode() for label in expected.labels]
        full = expected.masks_full()
        for mask, truth in zip(found["masks"][0], full, strict=True):
            np.testing.assert_array_equal(coco_mask.decode(json.loads(mask)), truth)


def test_an_image_without_objects_has_an_empty_answer(export, stub, bundle: Path, tmp_path: Path) -> None:
    ensemble = stub.Ensemble(export(bundle, tmp_path, min_score=0.99), NAME)
    found = ensemble.infer({"pixels": np.zeros((1, 50, 60, 3), np.uint8)})
    assert found["boxes"].shape == (1, 0, 4) and found["masks"].shape == (1, 0)


@pytest.mark.parametrize(
    ("inputs", "cause"),
    [
        ({"image": text(b"GIF89a")}, "not an image"),
        ({"image": text(encoded(scene())[:90])}, "truncated"),
        ({"pixels": scene()[None], "budget": text("nan")}, "must be a number above 0"),
        ({"pixels": scene()[None], "budget": text("-3")}, "must be a number above 0"),
        ({"pixels": scene()[None], "budget": text("8ms")}, "latency table"),
        ({"pixels": np.zeros((1, 300, 400, 3), np.uint8)}, "the limit is 100000"),
        ({}, "no image"),
        ({"pixels": scene()[None], "image": text(b"x")}, "both"),
    ],
)
def test_a_wrong_request_is_an_invalid_argument(
    export, stub, bundle: Path, tmp_path: Path, inputs: dict[str, np.ndarray], cause: str
) -> None:
    ensemble = stub.Ensemble(export(bundle, tmp_path, max_pixels=100_000), NAME)
    with pytest.raises(stub.TritonError, match=cause) as caught:
        ensemble.infer(inputs)
    assert caught.value.code() == stub.TritonError.INVALID_ARG


def test_the_configurations_say_what_was_asked_for(export, bundle: Path, tmp_path: Path) -> None:
    from apex_runtime.serving.triton_check import check_repository, read_config

    folder = export(bundle, tmp_path, queue=7, timeout_ms=250)
    assert check_repository(folder, NAME) == [NAME, f"{NAME}_preprocess", f"{NAME}_graph", f"{NAME}_postprocess"]
    graph = read_config(folder, f"{NAME}_graph")
    policy = graph.dynamic_batching.default_queue_policy
    assert (policy.max_queue_size, policy.default_timeout_microseconds, policy.allow_timeout_override) == (7, 250_000, True)
    assert graph.max_batch_size == 8 and graph.backend == "onnxruntime"
    door = read_config(folder, NAME).input
    assert {item.name: item.optional for item in door} == {"image": True, "pixels": True, "budget": True}
    first = read_config(folder, f"{NAME}_preprocess")
    assert first.dynamic_batching.default_queue_policy.max_queue_size == 7, "the door of the ensemble is bounded"


def test_it_is_written_again_beside_other_models(export, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    export(bundle, tmp_path)
    export(bundle, tmp_path, queue=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [NAME, f"{NAME}_graph", f"{NAME}_postprocess", f"{NAME}_preprocess", "other"]
    )
    assert all(any(path.iterdir()) for path in tmp_path.glob(f"{NAME}*/**/")), "an empty folder is lost on the way to a store"


# What the check finds.


def change(path: Path, old: str, new: str) -> None:
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new, 1))


@pytest.mark.parametrize(
    ("file", "old", "new", "cause"),
    [
        ("_graph/config.pbtxt", "max_batch_size", "max_batch", 'no field named "max_batch"'),
        ("_graph/config.pbtxt", "tile_bonus", "tile_bonus_9", "the configuration has"),
        ("_graph/config.pbtxt", "dims: 128", "dims: 96", "images"),
        ("_graph/config.pbtxt", "TYPE_FP32", "TYPE_INT64", "tile_bonus"),
        ("_preprocess/config.pbtxt", "TYPE_FP32", "TYPE_INT64", "tile_bonus"),
        ("_postprocess/config.pbtxt", f'"{NAME}_postprocess"', '"else"', "its name is"),
        ("_preprocess/1/model.py", "class TritonPythonModel", "class Model", "no class TritonPythonModel"),
        ("/config.pbtxt", 'value: "tile_bonus"', 'value: "tile_bonuses"', "before anything makes it"),
        ("/config.pbtxt", 'value: "graph_scores"', 'value: "graph_boxes"', "made twice"),
        ("_graph/config.pbtxt", "dims: 16\n      zero_data", "dims: 17\n      zero_data", "warm-up tile_bonus"),
    ],
)
def test_a_broken_repository_is_found(export, bundle: Path, tmp_path: Path, file: str, old: str, new: str, cause: str) -> None:
    from apex_runtime.serving.triton_check import check_repository

    folder = export(bundle, tmp_path)
    check_repository(folder, NAME)
    change(folder / f"{NAME}{file}", old, new)
    with pytest.raises(ModelError, match=cause):
        check_repository(folder, NAME)


def test_a_graph_of_another_model_is_found(export, bundle: Path, tiny_onnx: Path, tmp_path: Path) -> None:
    from apex_runtime.serving.triton_check import check_repository

    folder = export(bundle, tmp_path)
    shutil.copy(tiny_onnx, folder / f"{NAME}_graph" / "1" / "model.onnx")
    with pytest.raises(ModelError, match="inputs"):
        check_repository(folder, NAME)


# Bundles of other backends.


def with_plan(bundle: Path, folder: Path, **changes: object) -> Path:
    """A copy of a bundle that says it is of TensorRT, with a file in the place of the plan."""
    from apex_runtime.bundle.hashing import sha256_of

    shutil.copytree(bundle, folder)
    (folder / "plan.sm89").write_bytes(b"plan")
    manifest = json.loads((folder / "manifest.json").read_text())
    plan = {"path": "plan.sm89", "role": "plan", "sha256": sha256_of(folder / "plan.sm89"), "bytes": 4, "compute_capability": 89}
    manifest |= {"backend": "tensorrt", "artefacts": [*manifest["artefacts"], plan], "compute_capabilities": [89]} | changes
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_plan_is_served_without_batches(export, bundle: Path, tmp_path: Path) -> None:
    from apex_runtime.serving.triton_check import read_config

    folder = export(with_plan(bundle, tmp_path / "bundle"), tmp_path / "repository", budget="5")
    graph = read_config(folder, f"{NAME}_graph")
    assert graph.backend == "tensorrt" and graph.max_batch_size == 0
    assert dict(graph.cc_model_filenames) == {"8.9": "plan.sm89"}
    assert (folder / f"{NAME}_graph" / "1" / "plan.sm89").read_bytes() == b"plan"
    shapes = {item.name: (list(item.dims), item.is_shape_tensor) for item in graph.input}
    assert shapes == {"images": ([-1, 128, 128, 3], False), "tiles": ([1], True), "tile_bonus": ([-1, 16], False)}
    (sample,) = graph.model_warmup
    assert np.fromfile(folder / f"{NAME}_graph" / "warmup" / sample.inputs["tiles"].input_data_file, np.int64).tolist() == [5]


def test_the_first_model_gives_a_plan_its_number_of_tiles(export, stub, bundle: Path, tmp_path: Path) -> None:
    folder = export(with_plan(bundle, tmp_path / "bundle"), tmp_path / "repository")
    change(folder / f"{NAME}_graph" / "config.pbtxt", 'backend: "tensorrt"', 'backend: "onnxruntime"')
    shutil.copy(bundle / "model.onnx", folder / f"{NAME}_graph" / "1" / "plan.sm89")  # the same inputs as those of a plan
    found = stub.Ensemble(folder, NAME).infer({"pixels": scene()[None], "budget": text("3")})
    assert found["spent"].tolist() == [[3]] and found["boxes"].shape[1] > 0


def test_what_triton_cannot_run_is_refused(export, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no backend for plans of TensorRT for RTX"):
        export(with_plan(bundle, tmp_path / "rtx", backend="tensorrt-rtx"), tmp_path / "repository")
    plugin = {"name": "TilePack", "namespace": "apex", "version": "1", "body": True, "implementation": "registry"}
    with pytest.raises(BundleError, match="plugins that Triton cannot load"):
        export(with_plan(bundle, tmp_path / "plugins", plugins=[plugin]), tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_a_folder_that_is_no_model_is_left_alone(export, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}_graph").mkdir()
    (tmp_path / f"{NAME}_graph" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="no model of Triton"):
        export(bundle, tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == [f"{NAME}_graph", "notes.txt"]
