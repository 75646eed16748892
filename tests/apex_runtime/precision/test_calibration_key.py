"""A key is the same for the same model, images, libraries and wishes, and says in words which of them is another."""

from __future__ import annotations

from dataclasses import replace

import onnx
import onnxruntime
import pytest

from apex_runtime.backends.onnx_contract import OnnxFile
from apex_runtime.precision.calibration_key import CacheKey

DATA = "d" * 64


@pytest.fixture
def key(shipped: OnnxFile) -> CacheKey:
    return CacheKey.of(shipped, "edge", "minmax", DATA)


def test_it_says_what_the_model_and_this_machine_have(key: CacheKey, shipped: OnnxFile) -> None:
    assert key.op_versions["ai.onnx"] == 20 and key.op_versions["apex.TilePack"] == "1"
    assert key.input_shape == (1, 512, 512, 3)
    assert key.libraries["onnxruntime"] == onnxruntime.__version__ and key.libraries["apex-x"]
    assert key.changes(key) == () and len(key.sha256) == 64


def test_other_images_are_noticed(key: CacheKey, shipped: OnnxFile) -> None:
    now = CacheKey.of(shipped, "edge", "minmax", "e" * 64)
    assert key.changes(now) == ("the images changed",) and now.sha256 != key.sha256


def test_another_model_is_noticed(key: CacheKey, shipped: OnnxFile, model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 21
    other = replace(shipped, model=model, data=model.SerializeToString())
    now = CacheKey.of(other, "edge", "minmax", DATA)
    assert key.changes(now) == ("the model changed", "the version of the operators ai.onnx changed: 20 -> 21")


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("model_sha256", "1" * 64, "the model changed"),
        ("profile", "quality", "the profile changed: edge -> quality"),
        ("data_sha256", "1" * 64, "the images changed"),
        ("op_versions", {"ai.onnx": 20, "apex": 1}, "the version of the operators apex.TilePack changed: 1 -> none"),
        ("method", "entropy", "the method changed: minmax -> entropy"),
        ("input_shape", (1, 512, 640, 3), "the input shape changed: 1x512x512x3 -> 1x512x640x3"),
        ("libraries", {"onnxruntime": "9.9", "apex-x": "0"}, "the version of onnxruntime changed: "),
    ],
)
def test_every_part_counts_and_is_named(key: CacheKey, part: str, value: object, words: str) -> None:
    now = CacheKey.model_validate(key.model_dump() | {part: value})
    changes = key.changes(now)
    assert changes[0].startswith(words) and now.sha256 != key.sha256
    assert part not in ("model_sha256", "profile", "data_sha256", "method", "input_shape") or len(changes) == 1
    assert set(key.model_dump()) == {
        "model_sha256", "profile", "data_sha256", "op_versions", "method", "input_shape", "libraries",
    }  # fmt: skip
