"""The curve of halos ends where nothing is left out, and that end is known from the network."""

from __future__ import annotations

import json
from pathlib import Path

import halo as program
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from apex_runtime.routing.budget import parse_budget
from apex_train.checkpoint import save_checkpoint
from apex_train.model.config import SIZES, ModelConfig
from apex_train.model.detector import ApexDetector
from apex_train.predictor import TorchSession


@pytest.mark.parametrize("size", list(SIZES))
def test_the_receptive_radius_is_what_a_cell_feels(size) -> None:
    """By the gradient of one cell, with weights that cannot cancel."""
    stream = ApexDetector(ModelConfig(size=size, halo=0)).eval().foveal
    for parameter in stream.parameters():
        torch.nn.init.constant_(parameter, 0.01)
    image = torch.ones(1, 3, 384, 384, requires_grad=True)
    stream(image)[0, :, 24, 24].sum().backward()
    felt = torch.nonzero(image.grad[0, 0].sum(0))[:, 0]
    reach = 24 * 8 - int(felt.min()), int(felt.max()) - 24 * 8
    assert max(reach) == program.receptive_radius(stream)


def test_features_are_dense_once_the_halo_reaches_far_enough(model, dataset) -> None:
    radius = program.receptive_radius(model.foveal)
    gaps = [program.feature_gap(program.with_halo(model, halo), dataset.read_image(0), (192, 256)) for halo in (0, 8, 24, 56)]
    assert radius == 55 and gaps[-1][0] <= program.EXACT
    means = [gap[1] for gap in gaps]
    assert means == sorted(means, reverse=True) and means[0] > 100 * means[-1]


def test_every_tile_is_looked_at_padding_too(model, dataset) -> None:
    prepared = program.EveryTile(TorchSession(model, 192, 320)).prepare(dataset.read_image(0), parse_budget(0.25))
    assert prepared.tiles == 15 > prepared.n_content


def test_the_program_measures_the_asked_halos_and_the_exact_one(model, nuclei_fixture: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", model, model.config)
    words = [str(tmp_path / "a.pt"), "--data", str(nuclei_fixture), "--split", "val", "--size", "128x192", "--halos", "0"]
    words += ["--images", "2", "--samples", "20", "--output", str(tmp_path / "h.json"), "--plot", str(tmp_path / "h.png")]
    done = CliRunner().invoke(program.main, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "h.json").read_text())["rows"]
    assert [row["halo"] for row in rows] == [0, 8, 56] and rows[1]["area"] == pytest.approx(1.5625)
    assert rows[-1]["AP_segm_minus_dense"]["value"] == pytest.approx(0, abs=1e-6) and rows[0]["features"]["mean"] > 0.01
    assert (tmp_path / "h.png").stat().st_size > 10_000 and np.isfinite(rows[0]["AP_bbox"]["value"])
