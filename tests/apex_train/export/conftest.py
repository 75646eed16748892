"""One small network and one exported file for all tests of the exporter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from apex_runtime.model_info import Category
from apex_train.checkpoint import save_checkpoint
from apex_train.cli.export import export
from apex_train.model.config import ModelConfig
from apex_train.model.detector import ApexDetector


@pytest.fixture(scope="session")
def detector() -> ApexDetector:
    """Random weights with lively statistics: nothing is zero, no two scores are equal, batch norms differ from the identity."""
    torch.manual_seed(3)
    classes = (Category(id=7, name="roof"), Category(id=9, name="car"), Category(id=2, name="tree"))
    model = ApexDetector(ModelConfig(classes=classes, tile=32, halo=8, max_detections=40, prototypes=16))
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0)
            elif name.endswith("running_mean") or (tensor.is_floating_point() and not tensor.any()):
                tensor.normal_(0.0, 0.2)
    return model.eval()


@pytest.fixture(scope="session")
def checkpoint(detector: ApexDetector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network as a checkpoint file."""
    path = tmp_path_factory.mktemp("checkpoint") / "best.pt"
    save_checkpoint(path, detector, detector.config)
    return path


@pytest.fixture(scope="session")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The file that the command writes, checked on one photo beside the random images, and its report. 2 x 4 tiles of 32."""
    folder = tmp_path_factory.mktemp("export")
    photo = folder / "photo.png"
    assert cv2.imwrite(str(photo), np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8))
    path = folder / "model.onnx"
    arguments = [str(checkpoint), "-o", str(path), "--size", "64x128", "--check-images", str(photo), "--json"]
    result = CliRunner().invoke(export, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return path, json.loads(result.output)
