"""What a model thinks of labels: overlaps with its class, regions nobody annotated, and an area under a curve."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from apex_runtime.data.dataset import Instances
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.detections import Detections
from apex_runtime.postprocess.letterbox import Letterbox
from apex_train.labels.agreement import agree
from apex_train.labels.separation import separation

SIDE = 100


def block(x: int, y: int, width: int = 20, height: int = 20) -> RoiMask:
    return RoiMask(x, y, np.ones((height, width), np.uint8))


def boxes_of(masks: list[RoiMask]) -> np.ndarray:
    return np.array([[m.x, m.y, m.x + m.bits.shape[1], m.y + m.bits.shape[0]] for m in masks], np.float32).reshape(-1, 4)


def found(masks: list[RoiMask], scores: list[float], labels: list[int]) -> Detections:
    ids = np.zeros(1, np.int64)
    label_n = np.array(labels, np.int64)
    box = Letterbox(SIDE, SIDE, SIDE, SIDE)
    return Detections(boxes_of(masks), np.array(scores, np.float32), label_n, label_n + 1, masks, ids, ids, 1, box)


def truth(masks: list[RoiMask], labels: list[int], crowd: list[bool]) -> Instances:
    areas = np.array([mask.area for mask in masks], np.float32)
    return Instances(boxes_of(masks), np.array(labels, np.int64), list(masks), np.array(crowd, bool), areas)


@pytest.mark.parametrize("by_mask", [True, False])
def test_quality_and_what_nobody_annotated(by_mask: bool) -> None:
    annotated = truth([block(0, 0), block(40, 0), block(70, 0), block(60, 60, 40, 40)], [0, 0, 1, 0], [False] * 3 + [True])
    seen = found(
        [block(0, 0), block(50, 0), block(70, 0), block(0, 60), block(70, 70, 10, 10), block(30, 60), block(0, 2)],
        [0.9, 0.8, 0.7, 0.6, 0.6, 0.3, 0.1],
        [0, 0, 0, 0, 0, 0, 0],
    )
    agreement = agree(seen, annotated, {0: 0, 1: 1}, by_mask, 0.5)
    # as it is; moved by half; of another class than the model says; a crowd
    assert agreement.quality[:3].tolist() == pytest.approx([1.0, 1 / 3, 0.0], abs=1e-6) and np.isnan(agreement.quality[3])
    assert agreement.mean == pytest.approx(4 / 9)
    # the place where the shifted one should be, the wrong class, nothing at all; not the one in the crowd, nor the unsure one
    assert agreement.unlabelled.boxes[:, :2].tolist() == [[50, 0], [70, 0], [0, 60]]


def test_classes_of_the_model_are_translated() -> None:
    annotated, seen = truth([block(0, 0)], [1], [False]), found([block(0, 0)], [0.9], [0])
    assert agree(seen, annotated, {0: 1}, True, 0.5).quality.tolist() == [1.0]
    assert agree(seen, annotated, {0: 0}, True, 0.5).quality.tolist() == [0.0]


def test_images_without_anything() -> None:
    nothing = agree(found([], [], []), truth([block(0, 0)], [0], [False]), {0: 0}, True, 0.5)
    assert nothing.quality.tolist() == [0.0] and len(nothing.unlabelled) == 0
    bare = agree(found([block(0, 0)], [0.9], [0]), truth([], [], []), {0: 0}, True, 0.5)
    assert bare.mean is None and len(bare.unlabelled) == 1


def test_separation_is_the_area_under_the_curve_with_ties() -> None:
    rng = np.random.default_rng(0)
    wrong = rng.random(300) < 0.2
    quality = np.round(rng.random(300) - 0.3 * wrong, 1)  # many ties
    result = separation(quality, wrong, rng.integers(0, 30, 300), 30)
    expected = mannwhitneyu(quality[~wrong], quality[wrong]).statistic / (wrong.sum() * (~wrong).sum())
    assert result is not None and result["value"] == pytest.approx(expected, abs=1e-4)
    assert result["low"] < result["value"] < result["high"] and result["high"] - result["low"] < 0.3
    assert separation(quality, np.zeros(300, bool), np.zeros(300, np.int64), 1) is None


def test_images_are_what_is_drawn() -> None:
    """A quality that is right in half of the images and wrong in the others is less certain than the number of labels says."""
    image = np.repeat(np.arange(8), 40)
    wrong = np.tile(np.arange(40) < 10, 8)
    quality = np.where(image % 2 == 0, ~wrong, wrong) + 0.0
    alone, together = (separation(quality, wrong, places, count) for places, count in ((np.arange(320), 320), (image, 8)))
    assert alone is not None and together is not None
    assert together["high"] - together["low"] > 2 * (alone["high"] - alone["low"])
