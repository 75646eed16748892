"""How the shipped network fares on an image: losses and gains of whole choices of tiles, overlaps counted pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from apex_runtime.data.open import open_dataset
from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.routing.budget import parse_budget
from apex_runtime.routing.grid import content_tiles
from apex_train.config import LossConfig
from apex_train.engine.evaluate import whole_pictures
from apex_train.engine.tile_truth import TileTruth
from apex_train.mining.look import CLAIM, Fared, Look
from apex_train.predictor import open_checkpoint
from apex_train.pseudo.views import parse_views

SIDE = 256


@pytest.fixture(scope="module")
def case(repo_root: Path, nuclei_fixture: Path):
    session = open_checkpoint(repo_root / "engines" / "nuclei-nano" / "checkpoint.pt", (SIDE, SIDE))
    dataset = open_dataset(nuclei_fixture, "val", "coco")
    fared = Look(session, dataset, parse_views(["flip-x"]), "4", LossConfig()).at(0)
    return session, dataset, fared


def test_regret_is_what_four_tiles_leave_lying(case) -> None:
    session, dataset, fared = case
    prepared = Predictor(session).prepare(dataset.read_image(0), parse_budget("4"))
    content_N = content_tiles(prepared.letterbox, session.info.tiles)
    truth = TileTruth(session.model, whole_pictures(dataset, range(1), (SIDE, SIDE)), LossConfig(), content_N)
    tiles, chosen = np.flatnonzero(content_N).tolist(), truth.router_choice(4)
    assert fared.loss == pytest.approx(float(truth.losses([tiles])[0]))
    whole = float(truth.losses([chosen])[0])
    gains = {}
    for tile in tiles:
        other = float(truth.losses([set(chosen) ^ {tile}])[0])
        gains[tile] = other - whole if tile in chosen else whole - other
    best = sorted(gains.values(), reverse=True)[:4]
    assert fared.regret == pytest.approx(sum(best) - sum(gains[tile] for tile in chosen), abs=1e-4)
    assert fared.regret > 0


def test_objects_are_as_hard_as_they_are_badly_overlapped(case) -> None:
    session, dataset, fared = case
    image, truth = dataset.read_image(0), dataset.instances(0)
    (found,) = Predictor(session).predict([image], 1.0, CLAIM)
    masks = [[mask.full(*image.shape[:2]) for mask in side] for side in (truth.masks, found.masks)]
    iou = np.array([[(mine & other).sum() / (mine | other).sum() for other in masks[1]] for mine in masks[0]])
    objects = {item.annotation: item for item in fared.instances if item.kind != "false"}
    assert len(objects) == len(truth) > 5 and iou.max() > 0.5
    for place, best in enumerate(iou.max(axis=1)):
        assert objects[place].difficulty == pytest.approx(1 - best, abs=1e-4)
        assert objects[place].kind == ("missed" if best < 0.5 else "loose")
    claims = [item.difficulty for item in fared.instances if item.kind == "false"]
    assert claims == pytest.approx(
        [score for score, best in zip(found.scores, iou.max(axis=0), strict=True) if best < 0.5], abs=1e-4
    )


def test_a_view_disagrees_somewhat(case) -> None:
    fared: Fared = case[2]
    assert fared.disagreement is not None and 0 < fared.disagreement < 0.9
