"""A graph says by itself which precision it computes in."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from apex_runtime.backends.onnx_contract import OnnxFile
from apex_runtime.parity.subjects import identify
from apex_runtime.precision.convert import convert
from apex_runtime.precision.data import precision_data
from apex_runtime.precision.graph_precision import precision_of
from apex_runtime.precision.plan import plan_for
from apex_runtime.precision.ranges import calibration_feeds


@pytest.mark.parametrize(
    ("precision", "profile", "backend"),
    [("fp16", None, "ort-cpu"), ("int8", None, "ort-cpu"), ("int8", "edge", "tensorrt"), ("fp8", "balanced", "tensorrt")],
)
def test_what_a_pass_made_is_what_it_is(
    shipped: OnnxFile, sample: Path, tmp_path: Path, precision: str, profile: str | None, backend: str
) -> None:
    plan = plan_for(precision, backend, profile)  # type: ignore[arg-type]
    assert plan is not None
    model = convert(shipped.model, plan, calibration_feeds(precision_data(sample).calibration, shipped.info)).model
    assert precision_of(shipped.model) == "fp32" and precision_of(model) == precision
    onnx.save(model, tmp_path / "model.onnx")
    assert identify(tmp_path / "model.onnx").precision == precision


@pytest.mark.parametrize("data", [b"", b"\xff" * 100, b"text"])
def test_a_file_that_is_no_model_is_left_to_others(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(data)
    assert identify(tmp_path / "model.onnx").precision == "fp32"
