"""The yardsticks measure what they say, and what is shown in README and docs is what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from budget_curve import draw, read_points
from dense import densify
from readme_figures import replaced
from torch import nn

from apex_train.model.config import ModelConfig
from apex_train.model.detector import ApexDetector


def test_all_tiles_equal_the_dense_pass_when_the_halo_is_wide_enough() -> None:
    torch.manual_seed(0)
    model = ApexDetector(ModelConfig(halo=56)).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    nn.init.normal_(model.context.film.weight, std=0.1)
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 128, 192, 3), dtype=np.uint8))
    with torch.no_grad():
        tiled, dense = (item(image, 6, torch.zeros(2, 6)).heads for item in (model, densify(model)))
    for name in ("one", "ltrb", "coefficients", "prototypes"):
        a, b = getattr(tiled, name), getattr(dense, name)
        assert (a - b).abs().max() <= 1e-4 * b.abs().max(), name


def test_the_shipped_curve_is_drawn_from_the_evidence(repo_root: Path) -> None:
    files = [repo_root / "bench" / "evidence" / name for name in ("nuclei-nano.json", "latency-512.json")]
    points, tiles = read_points(*(json.loads(file.read_text()) for file in files))
    assert len(points) >= 4
    drawn = draw(points, tiles, ", ".join(file.name for file in files))
    assert drawn == (repo_root / "docs" / "budget-curve.svg").read_text()


def test_the_readme_shows_the_figures_of_the_evidence(repo_root: Path) -> None:
    text = (repo_root / "README.md").read_text()
    assert replaced(text) == text
