"""OrtSession runs our models, by the standard's own reference evaluator, and refuses everything else with a reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from pictures import discs
from tiny_model import tiny_info, tiny_proto

from apex_runtime.backends import onnx_contract, ort
from apex_runtime.backends.ort import OrtSession, lanes_of
from apex_runtime.errors import BackendError, ModelError, UsageError
from apex_runtime.model_info import OUTPUT_NAMES, ModelInfo


@pytest.fixture(scope="module")
def session(tiny_onnx: Path) -> OrtSession:
    return OrtSession(tiny_onnx, threads=1)


def two_images() -> np.ndarray:
    return np.stack([discs(128, 128, (80, 50, 11)), discs(128, 128, (20, 20, 8), (110, 100, 12))])


@pytest.mark.parametrize("tiles", [1, 5, 16])
def test_outputs_equal_the_reference_evaluator(session: OrtSession, tiny_onnx: Path, tiles: int) -> None:
    images, bonus = two_images(), np.zeros((2, 16), np.float32)
    bonus[1, 9] = 24
    found = session.run(images, tiles, bonus)
    reference = ReferenceEvaluator(str(tiny_onnx))
    feeds = {"images": images, "tiles": np.array([tiles]), "tile_bonus": bonus}
    wanted = dict(zip(OUTPUT_NAMES, reference.run(list(OUTPUT_NAMES), feeds), strict=True))
    best = found["scores"] > 0.05  # equal scores of empty tiles may come in any order
    assert best.sum() >= 1
    for name in ("scores", "boxes", "labels", "candidate_ids"):
        np.testing.assert_allclose(found[name][best], wanted[name][best], atol=1e-4, err_msg=name)
    for name in ("mask_prototypes", "tile_ids", "utilities"):
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-4, err_msg=name)
    assert 9 in found["tile_ids"][1], "the bonus forces a tile"


def test_name_and_passport(session: OrtSession) -> None:
    assert session.name == "ort-cpu"
    assert session.info == tiny_info()


def bad_feeds() -> list:
    images, bonus = two_images(), np.zeros((2, 16), np.float32)
    return [
        pytest.param(images[0], 4, bonus[:1], id="no batch axis"),
        pytest.param(images[:0], 4, bonus[:0], id="empty batch"),
        pytest.param(images[:, :64], 4, bonus, id="other size"),
        pytest.param(images.astype(np.float32), 4, bonus, id="float image"),
        pytest.param(images, 0, bonus, id="no tile"),
        pytest.param(images, 17, bonus, id="too many tiles"),
        pytest.param(images, 4, bonus[:1], id="bonus of one image"),
        pytest.param(images, 4, bonus.astype(np.float64), id="float64 bonus"),
    ]


@pytest.mark.parametrize(("images", "tiles", "bonus"), bad_feeds())
def test_wrong_arrays_are_refused(session: OrtSession, images: np.ndarray, tiles: int, bonus: np.ndarray) -> None:
    with pytest.raises(UsageError) as caught:
        session.run(images, tiles, bonus)
    assert caught.value.remedy


@pytest.mark.parametrize("threads", [0, -1, 5000])
def test_thread_count_is_checked(tiny_onnx: Path, threads: int) -> None:
    with pytest.raises(UsageError, match="--threads"):
        OrtSession(tiny_onnx, threads)


class _Failing:
    def __init__(self, words: str) -> None:
        self.words = words

    def run(self, *_arguments: object) -> None:
        raise RuntimeError(self.words)


@pytest.mark.parametrize(("words", "code"), [("Non-zero status code", "execution_failed"), ("std::bad_alloc", "out_of_memory")])
def test_a_failing_run_has_a_stable_code(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch, words: str, code: str) -> None:
    session = OrtSession(tiny_onnx, 1)
    monkeypatch.setattr(session, "_session", _Failing(words))
    with pytest.raises(BackendError) as caught:
        session.run(two_images(), 4, np.zeros((2, 16), np.float32))
    assert caught.value.code == code
    assert caught.value.remedy


def foreign() -> onnx.ModelProto:
    """A correct ONNX model of somebody else."""
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3]) for name in "xy")
    return helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "other", [x], [y]))


def changed(change: Callable[[onnx.ModelProto], None]) -> onnx.ModelProto:
    model = tiny_proto(tiny_info())
    change(model)
    return model


def rename_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "rectangles"


def fix_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].Clear()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def float_images(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT


def more_tiles(model: onnx.ModelProto) -> None:
    info = tiny_info().model_dump()
    info["tiles"] |= {"tile": 16, "rows": 8, "cols": 8}
    helper.set_model_props(model, {"apex_x": ModelInfo.model_validate(info).to_json()})


def outside_weights(model: onnx.ModelProto) -> None:
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "outside")
    onnx.external_data_helper.set_external_data(tensor, "../../secret.bin")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    model.graph.initializer.append(tensor)


def metadata(text: str) -> Callable[[onnx.ModelProto], None]:
    return lambda model: helper.set_model_props(model, {"apex_x": text})


BAD_MODELS = [
    pytest.param(foreign(), "not an Apex-X model", id="foreign"),
    pytest.param(changed(rename_output), "rectangles", id="renamed output"),
    pytest.param(changed(fix_batch), "fixed to 1", id="fixed batch"),
    pytest.param(changed(float_images), "has type float32, expected uint8", id="float images"),
    pytest.param(changed(more_tiles), "tile_bonus has 16", id="metadata of another grid"),
    pytest.param(changed(outside_weights), "outside the file", id="external data"),
    pytest.param(changed(metadata("{")), "not JSON", id="metadata is no JSON"),
    pytest.param(changed(metadata("[]")), "format None", id="metadata is a list"),
    pytest.param(changed(metadata('{"format_version": 99}')), "format 99", id="future version"),
    pytest.param(changed(metadata('{"format_version": 1}')), "Field required", id="metadata incomplete"),
]


@pytest.mark.parametrize(("model", "words"), BAD_MODELS)
def test_models_that_break_the_contract_are_refused(model: onnx.ModelProto, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=words) as caught:
        OrtSession(path)
    assert str(path) in caught.value.message
    assert "xport" in caught.value.remedy


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"this is no model at all", "not an ONNX"),
        (b"\x89PNG\r\n\x1a\n" * 40, "not an ONNX"),
        (b"\0" * 64, "not an ONNX"),
    ],
)
def test_files_that_are_no_onnx_are_refused(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=words):
        OrtSession(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_model_is_refused(tiny_onnx: Path, tmp_path: Path, share: float) -> None:
    data = tiny_onnx.read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelError):
        OrtSession(path)


def test_missing_and_oversized_files(tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no such file"):
        OrtSession(tmp_path / "absent.onnx")
    monkeypatch.setattr(onnx_contract, "MAX_FILE_BYTES", 1000)
    with pytest.raises(ModelError, match="more than"):
        OrtSession(tiny_onnx)


def test_a_graph_that_onnx_runtime_cannot_load(tmp_path: Path) -> None:
    def unknown_op(model: onnx.ModelProto) -> None:
        del model.functions[:]

    path = tmp_path / "model.onnx"
    path.write_bytes(changed(unknown_op).SerializeToString())
    with pytest.raises(BackendError) as caught:
        OrtSession(path)
    assert caught.value.code == "model_load_failed"


@pytest.mark.parametrize(("threads", "lanes", "each"), [(1, 1, 1), (2, 2, 1), (8, 8, 1), (20, 8, 13), (None, 3, 1)])
def test_lanes_share_the_threads(
    tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch, threads: int | None, lanes: int, each: int
) -> None:
    """ONNX Runtime counts the caller among the threads of a session: with 8 callers, 12 more are 20."""
    monkeypatch.setattr(ort, "usable_cpus", lambda: 3)
    assert lanes_of(threads) == lanes
    session = OrtSession(tiny_onnx, threads, lanes)
    assert session._session.get_session_options().intra_op_num_threads == each
