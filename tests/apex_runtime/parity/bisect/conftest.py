"""What tests of the bisection share: the tiny model and its image, and a search that is set up."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from tiny_model import tiny_info, tiny_proto

from apex_runtime.parity.bisect.journal import Journal
from apex_runtime.parity.bisect.run import bisect
from apex_runtime.parity.check import Settings
from apex_runtime.parity.tolerance import load_profile
from apex_runtime.routing.budget import parse_budget

Searching = Callable[..., Journal]


@pytest.fixture(scope="session")
def tiny() -> onnx.ModelProto:
    return tiny_proto(tiny_info())


@pytest.fixture(scope="session")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One image: bright blobs of several sizes on noise, so that tiles, boxes and scores all differ."""
    random = np.random.default_rng(7)
    pixels = random.integers(0, 60, (128, 128, 3), dtype=np.uint8)
    for x, y, radius in ((20, 30, 9), (70, 40, 14), (100, 100, 6), (40, 90, 17)):
        cv2.circle(pixels, (x, y), radius, tuple(random.integers(140, 256, 3).tolist()), -1)
    path = tmp_path_factory.mktemp("blobs") / "blobs.png"
    cv2.imwrite(str(path), pixels)
    return path


@pytest.fixture(scope="session")
def sample(repo_root: Path) -> Path:
    return repo_root / "engines" / "samples" / "797945873ca2a95f.jpg"


@pytest.fixture(scope="session")
def shipped_path(repo_root: Path) -> Path:
    return repo_root / "engines" / "nuclei-nano" / "model.onnx"


@pytest.fixture
def searching(tmp_path: Path) -> Searching:
    """``searching(reference, candidate, image)``: models as protobufs or paths; what is found lies in ``tmp_path / "found"``."""

    def run(reference: onnx.ModelProto | Path, candidate: onnx.ModelProto | Path, image: Path, budget: str = "0.5") -> Journal:
        paths = [_path(tmp_path / f"{at}.onnx", model) for at, model in enumerate((reference, candidate))]
        settings = Settings((parse_budget(budget),), load_profile("quality"), images=image, threads=1)
        return bisect(*paths, settings, tmp_path / "found", lambda total: nullcontext(lambda done, failed: None))

    return run


def _path(path: Path, model: onnx.ModelProto | Path) -> Path:
    if isinstance(model, Path):
        return model
    onnx.save(model, path)
    return path
