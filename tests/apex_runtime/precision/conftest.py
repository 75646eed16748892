"""What tests of precision share: the shipped model, and its passport."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from apex_runtime.backends.onnx_contract import OnnxFile, read_onnx


@pytest.fixture(scope="session")
def shipped_path(repo_root: Path) -> Path:
    return repo_root / "engines" / "nuclei-nano" / "model.onnx"


@pytest.fixture(scope="session")
def shipped(shipped_path: Path) -> OnnxFile:
    """The default engine's model; tests that change it take ``model``."""
    return read_onnx(shipped_path)


@pytest.fixture
def model(shipped: OnnxFile) -> onnx.ModelProto:
    """A copy of the default engine's graph."""
    copy = onnx.ModelProto()
    copy.CopyFrom(shipped.model)
    return copy


@pytest.fixture(scope="session")
def sample(repo_root: Path) -> Path:
    """One image: what is tested here does not need six."""
    return repo_root / "engines" / "samples" / "797945873ca2a95f.jpg"
