"""The exported file: what it holds, that it equals torch, and that a failing export writes nothing."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.helper import get_attribute_value

from apex_runtime.backends.ort import OrtSession
from apex_runtime.errors import UsageError
from apex_runtime.model_info import INPUT_NAMES, OUTPUT_NAMES
from apex_train.checkpoint import file_sha256
from apex_train.export import exporter
from apex_train.export.exporter import export_onnx
from apex_train.export.structure import SCOPE_KEY, ExportError, all_nodes, check_structure
from apex_train.predictor import TorchSession

HEIGHT, WIDTH = 64, 128


@pytest.fixture
def graph(exported):
    return onnx.load(exported[0])


def test_signature(graph):
    assert [v.name for v in graph.graph.input] == list(INPUT_NAMES)
    assert [v.name for v in graph.graph.output] == list(OUTPUT_NAMES)
    shapes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.graph.output}
    assert shapes["boxes"] == ["batch", 40, 4] and shapes["mask_coefficients"] == ["batch", 40, 16]
    assert shapes["mask_prototypes"] == ["batch", 16, HEIGHT // 4, WIDTH // 4]
    assert shapes["tile_ids"] == shapes["tile_levels"] == ["batch", "k"] and shapes["utilities"] == ["batch", 8]
    assert {(o.domain, o.version) for o in graph.opset_import} == {("", 20), ("apex", 1)}


def test_ops_are_functions_with_plugin_attributes(graph):
    assert {f.name for f in graph.functions} == {"TilePack", "TileSSMScan", "TileUnpackFusion"}
    calls = [node for node in graph.graph.node if node.domain == "apex"]
    assert sorted(node.op_type for node in calls) == ["TilePack", "TileSSMScan", "TileSSMScan", "TileUnpackFusion"]
    for node in calls:
        given = {a.name: get_attribute_value(a) for a in node.attribute}
        assert given["plugin_namespace"] == b"apex" and given["plugin_version"] == b"1"
    pack = next({a.name: get_attribute_value(a) for a in n.attribute} for n in calls if n.op_type == "TilePack")
    assert pack["tile"] == 32 and pack["halo"] == 8
    assert {get_attribute_value(a) for n in calls if n.op_type == "TileSSMScan" for a in n.attribute if a.name == "reverse"} == {
        0,
        1,
    }


def test_metadata(exported, checkpoint):
    info = OrtSession(exported[0]).info
    assert [(c.id, c.name) for c in info.classes] == [(7, "roof"), (9, "car"), (2, "tree")]
    assert (info.input.height, info.input.width, info.tiles.rows, info.tiles.cols) == (HEIGHT, WIDTH, 2, 4)
    assert info.checkpoint_sha256 == file_sha256(checkpoint) and info.max_detections == 40 and info.mask.channels == 16
    assert info.gflops.base > 0 and info.gflops.per_tile > 0 and {"torch", "onnx", "onnxscript"} <= set(info.tools)


def test_the_file_keeps_scopes_and_names_no_machine(exported, graph):
    scopes = [prop.value for node in graph.graph.node for prop in node.metadata_props if prop.key == SCOPE_KEY]
    assert all(any(f"detector.{part}" in scope for scope in scopes) for part in ("peripheral", "foveal", "router", "heads"))
    data = exported[0].read_bytes()
    for trace in (b"/home", b"/root", b"/tmp", b"site-packages", b".py", b"File "):
        assert trace not in data


def test_nothing_heavy_runs_on_the_whole_image(graph):
    """DESIGN rule 1: no Conv or MatMul reads a whole-image map below stride 4; there, the pooled stem and the prototypes' 1x1."""
    inferred = onnx.shape_inference.infer_shapes(graph, data_prop=True)
    shapes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in inferred.graph.value_info}
    kernels = {t.name: list(t.dims) for t in graph.graph.initializer}
    checked = 0
    for node in graph.graph.node:
        if node.op_type not in ("Conv", "MatMul", "Gemm"):
            continue
        shape = shapes.get(node.input[0])
        if not shape or len(shape) != 4 or shape[0] != "batch":
            continue
        checked += 1
        stride = HEIGHT // shape[2]
        entry = kernels[node.input[1]][1] == 3  # the stem, on the pooled image
        assert stride >= 8 or (stride == 4 and (entry or kernels[node.input[1]][2:] == [1, 1])), (node.name, shape)
    assert checked > 20


@pytest.mark.parametrize("batch, tiles", [(1, 1), (2, 3), (3, 8)])
def test_it_equals_torch_without_forcing(exported, detector, batch, tiles):
    """Free selection: utilities agree to 1e-5 and the key has steps of 1/128, so the choice is the same except on an edge."""
    rng = np.random.default_rng(batch)
    images = rng.integers(0, 256, (batch, HEIGHT, WIDTH, 3), dtype=np.uint8)
    bonus = np.zeros((batch, 8), np.float32)
    wanted, got = (side.run(images, tiles, bonus) for side in (TorchSession(detector, HEIGHT, WIDTH), OrtSession(exported[0])))
    np.testing.assert_array_equal(got["tile_ids"], wanted["tile_ids"])
    np.testing.assert_allclose(got["utilities"], wanted["utilities"], atol=1e-4)
    np.testing.assert_allclose(got["scores"], wanted["scores"], atol=1e-4)
    np.testing.assert_allclose(got["mask_prototypes"], wanted["mask_prototypes"], atol=1e-3, rtol=1e-3)


def test_the_budget_matters_to_the_result(exported):
    session, image = OrtSession(exported[0]), np.random.default_rng(0).integers(0, 256, (1, HEIGHT, WIDTH, 3), dtype=np.uint8)
    one, all_tiles = (session.run(image, k, np.zeros((1, 8), np.float32)) for k in (1, 8))
    assert one["tile_ids"].shape == (1, 1) and sorted(all_tiles["tile_ids"][0]) == list(range(8))
    assert not np.allclose(one["mask_prototypes"], all_tiles["mask_prototypes"])


def test_report(exported):
    path, report = exported
    assert report["path"] == str(path) and report["bytes"] == path.stat().st_size
    assert (report["height"], report["width"], report["tiles"], report["budgets"]) == (HEIGHT, WIDTH, 8, [1, 4, 8])
    assert report["worst"]["scores"] <= 1e-4 and report["worst"]["boxes"] <= 0.05
    assert report["functions"] == {"TilePack": 1, "TileSSMScan": 2, "TileUnpackFusion": 1}


def test_a_failing_export_keeps_the_old_file_and_leaves_no_litter(detector, graph, tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    bias = next(t for t in graph.graph.initializer if t.name.endswith("router.score.2.bias"))
    bias.raw_data = (np.frombuffer(bias.raw_data, np.float32) + 0.5).tobytes()
    monkeypatch.setattr(exporter, "trace_detector", lambda model, info: graph)
    with pytest.raises(ExportError, match=r"agreement.*utilities") as failure:
        export_onnx(detector, (HEIGHT, WIDTH), path)
    assert failure.value.code == "agreement"
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def break_output_name(graph):
    graph.graph.output[0].name = "bboxes"
    node = next(n for n in graph.graph.node if "boxes" in n.output)
    node.output[list(node.output).index("boxes")] = "bboxes"


def drop_function(graph):
    del graph.functions[0]


def drop_plugin_attribute(graph):
    node = next(n for n in graph.graph.node if n.domain == "apex")
    kept = [a for a in node.attribute if a.name != "plugin_version"]
    del node.attribute[:]
    node.attribute.extend(kept)


def add_forbidden(graph):
    graph.graph.node.append(onnx.helper.make_node("NonZero", ["utilities"], ["unused"]))


def break_type(graph):
    graph.graph.output[2].type.tensor_type.elem_type = onnx.TensorProto.FLOAT


@pytest.mark.parametrize(
    "damage, condition",
    [
        (break_output_name, "names"),
        (drop_function, "functions"),
        (drop_plugin_attribute, "functions"),
        (add_forbidden, "forbidden_ops"),
        (break_type, "checker"),
    ],
)
def test_each_structural_condition_can_fail(graph, damage, condition):
    check_structure(graph)
    damage(graph)
    with pytest.raises(ExportError) as failure:
        check_structure(graph)
    assert failure.value.code == condition


def test_all_nodes_looks_into_functions_and_subgraphs(graph):
    assert "ScatterND" in {node.op_type for node in all_nodes(graph)}


@pytest.mark.slow
def test_one_tile_grid(detector, tmp_path):
    report = export_onnx(detector, (32, 32), tmp_path / "one.onnx")
    assert report.tiles == 1 and report.budgets == (1,)


@pytest.mark.parametrize("size, says", [((100, 128), "not a multiple"), ((0, 32), "not a multiple")])
def test_a_size_that_does_not_fit(detector, tmp_path, size, says):
    with pytest.raises(UsageError, match=says):
        export_onnx(detector, size, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there(detector, tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        export_onnx(detector, (64, 64), tmp_path / "no" / "model.onnx")
