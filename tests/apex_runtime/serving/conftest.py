"""Bundles that the servers of the tests serve."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_model import write_tiny_model

from apex_runtime.bundle.build import build_bundle
from apex_runtime.engine import Engine, load


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Bundles of models with one class and with two."""
    folder = tmp_path_factory.mktemp("bundles")
    for classes in (1, 2):
        build_bundle(write_tiny_model(folder / f"{classes}.onnx", classes=classes), "ort-cpu", folder / str(classes))
    return {classes: folder / str(classes) for classes in (1, 2)}


@pytest.fixture(scope="module")
def engine(bundles: dict[int, Path]) -> Engine:
    return load(bundles[1], threads=1)
