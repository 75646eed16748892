"""The chosen limits against every combination counted one by one, and on the shipped network's own labels."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from apex_runtime.data.open import open_dataset
from apex_runtime.errors import DataError
from apex_runtime.pipeline.predictor import Predictor
from apex_train.predictor import open_checkpoint
from apex_train.pseudo.calibrate import SCORES, SHARES, best_limits, calibrate
from apex_train.pseudo.views import parse_views


@pytest.mark.parametrize("wanted", [0.5, 0.7, 0.9])
def test_no_other_combination_keeps_more_that_is_right(wanted: float) -> None:
    rng = np.random.default_rng(3)
    figures = np.round(rng.random((120, 4)), 2)  # also values that lie on a limit
    hit = rng.random(120) < figures.mean(axis=1)
    found, highest = best_limits(figures, hit, wanted)
    most, best = 0, 0.0
    for limits in itertools.product(SCORES[::3], SHARES[::2], SHARES[::2], SHARES[::2]):
        kept = (figures >= limits).all(axis=1)
        precision = hit[kept].mean() if kept.any() else 0.0
        best = max(best, precision)
        if precision >= wanted:
            most = max(most, int(hit[kept].sum()))
    kept = (figures >= found).all(axis=1)
    assert hit[kept].mean() >= wanted and hit[kept].sum() >= most > 0 and highest >= best


def test_none_reaches_what_cannot_be() -> None:
    figures, hit = np.full((4, 4), 0.95), np.array([True, True, True, False])
    assert best_limits(figures, hit, 0.8) == (None, 0.75)
    assert best_limits(np.zeros((0, 4)), np.zeros(0, bool), 0.5) == (None, 0.0)


def test_on_images_with_truth(repo_root: Path, nuclei_fixture: Path) -> None:
    predictor = Predictor(open_checkpoint(repo_root / "engines" / "nuclei-nano" / "checkpoint.pt", (256, 256)))
    dataset, views = open_dataset(nuclei_fixture, "val", "coco"), parse_views(["flip-x"])
    strict, loose = (calibrate(predictor, dataset, views, wanted).facts() for wanted in (0.9, 0.6))
    assert strict["precision"]["value"] >= 0.9 > loose["precision"]["value"] >= 0.6
    assert 0 < strict["recall"]["value"] < loose["recall"]["value"] and strict["images"] == 3
    with pytest.raises(DataError, match="no limits reach it on the split val"):
        calibrate(predictor, dataset, views, 1.01)
