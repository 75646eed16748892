"""The reference evaluator of ONNX as a subject: independent of ONNX Runtime, and of one opinion with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_model import write_tiny_model

from apex_runtime.backends.onnx_contract import read_onnx
from apex_runtime.backends.ort import OrtSession
from apex_runtime.errors import UsageError
from apex_runtime.parity.evaluator import EvaluatorSession
from apex_runtime.parity.subjects import identify


def test_both_compute_the_same(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "tiny.onnx")
    info = read_onnx(path).info
    images = np.random.default_rng(0).integers(0, 256, (2, info.input.height, info.input.width, 3), dtype=np.uint8)
    feeds = images, 2, np.zeros((2, info.tiles.count), np.float32)
    first, second = OrtSession(path, threads=1).run(*feeds), EvaluatorSession(path).run(*feeds)
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert array.dtype == second[name].dtype, name
        np.testing.assert_allclose(second[name], array, rtol=1e-4, atol=1e-4, err_msg=name)


def test_feeds_are_checked(tmp_path: Path) -> None:
    session = EvaluatorSession(write_tiny_model(tmp_path / "tiny.onnx"))
    with pytest.raises(UsageError, match="images"):
        session.run(np.zeros((1, 5, 5, 3), np.uint8), 1, np.zeros((1, session.info.tiles.count), np.float32))


def test_it_is_named_by_a_prefix(tmp_path: Path, tiny_bundle: Path) -> None:
    path = write_tiny_model(tmp_path / "tiny.onnx")
    assert (identify(f"onnx-reference:{path}").kind, identify(path).kind) == ("evaluator", "onnx")
    assert identify(f"onnx-reference:{tiny_bundle}").hashed == "model.onnx"
    for wrong in (tmp_path / "none.onnx", tmp_path / "best.pt"):
        with pytest.raises(UsageError, match="no ONNX file"):
            identify(f"onnx-reference:{wrong}")
