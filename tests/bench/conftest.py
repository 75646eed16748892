"""A network as after some training, and the real images it is measured on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from apex_runtime.data.open import open_dataset
from apex_train.checkpoint import load_model
from apex_train.model.config import ModelConfig
from apex_train.model.detector import ApexDetector


@pytest.fixture(scope="session")
def dataset(nuclei_fixture: Path):
    return open_dataset(nuclei_fixture, "val")


@pytest.fixture(scope="session")
def trained(repo_root: Path) -> ApexDetector:
    """The shipped network, whose figures are above zero."""
    return load_model(repo_root / "engines" / "nuclei-nano" / "checkpoint.pt")


@pytest.fixture(scope="session")
def model(dataset) -> ApexDetector:
    """Norms that do something, a scan and a gate that speak."""
    torch.manual_seed(0)
    built = ApexDetector(ModelConfig(classes=dataset.categories, max_detections=100)).eval()
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    nn.init.normal_(built.context.film.weight, std=0.2)
    nn.init.normal_(built.gate.score.weight, std=0.2)
    return built
