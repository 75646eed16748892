"""The figures of a detection, against whole pictures: logits thresholded by hand, boxes and overlaps counted pixel by pixel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_detections import made
from tiny_model import write_tiny_model

from apex_runtime.bundle.load import open_engine
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.routing.budget import parse_budget
from apex_train.pseudo.quality import agreement, best_overlap, consistency, stability


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(open_engine(write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.onnx"), 1).session)


def test_stability_is_the_share_of_logits_that_stay(predictor: Predictor) -> None:
    """The image is as large as the input, so that OpenCV interpolates between cells as the runtime does."""
    import cv2

    rows, cols = np.mgrid[:128, :128]
    centres = [(16, 20, 6), (50, 80, 9), (100, 30, 4), (90, 110, 12)]
    spots = sum(np.exp(-((rows - y) ** 2 + (cols - x) ** 2) / (2 * size**2)) for y, x, size in centres)
    image = np.repeat((200 * np.clip(spots, 0, 1)).astype(np.uint8)[..., None], 3, axis=2)
    prepared, wanted = predictor.prepare(image, parse_budget(1.0)), predictor.filter(0.05, None, None)
    (outputs,) = predictor.run([prepared])
    found = predictor.finish(outputs, prepared, wanted)
    logits_hw = np.tensordot(outputs["mask_coefficients"][0], outputs["mask_prototypes"], axes=1)
    full_hw = cv2.resize(logits_hw, (128, 128), interpolation=cv2.INTER_LINEAR)
    figures = stability(predictor, outputs, prepared, wanted)
    assert len(figures) == len(found) > 3
    for mask, figure in zip(found.masks, figures, strict=True):
        rows, cols = mask.bits.shape
        window = full_hw[mask.y : mask.y + rows, mask.x : mask.x + cols]
        strict, loose = (window > 1).sum(), (window > -1).sum()
        assert figure == pytest.approx(strict / loose if loose else 0, abs=0.02)
    assert 0.1 < figures.max() < 1 and figures.std() > 0.01


def test_agreement_of_a_half_filled_box() -> None:
    found = made([(0.9, (10, 20, 30, 40), 0), (0.8, (50, 50, 60, 70), 0)])
    assert agreement(found).tolist() == pytest.approx([0.5, 0.5])
    empty = replace(found, masks=[RoiMask(10, 20, np.zeros((4, 4), np.uint8)), RoiMask(45, 45, np.ones((10, 10), np.uint8))])
    assert agreement(empty).tolist() == pytest.approx([0.0, 25 / (200 + 100 - 25)])


def test_consistency_is_a_mean_over_views_of_equal_classes() -> None:
    found = made([(0.9, (10, 20, 30, 40), 0), (0.8, (50, 50, 60, 70), 1)])
    moved = made([(0.7, (50, 52, 60, 72), 1), (0.6, (15, 20, 35, 40), 0), (0.5, (10, 20, 30, 40), 1)])
    pictures = [[mask.full(100, 100) for mask in side.masks] for side in (found, moved)]
    expected = []
    for mine, label in zip(pictures[0], found.labels, strict=True):
        same = [other for other, theirs in zip(pictures[1], moved.labels, strict=True) if theirs == label]
        expected.append(max((mine & other).sum() / (mine | other).sum() for other in same))
    assert 0 < expected[0] < 1 and expected[0] != expected[1]
    assert best_overlap(found, moved).tolist() == pytest.approx(expected)
    assert consistency(found, [moved, made([])]).tolist() == pytest.approx([each / 2 for each in expected])
    assert consistency(found, []).tolist() == [1.0, 1.0]
