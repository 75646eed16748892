"""Slicing around the dense twin of an engine, as the frontier has it."""

from __future__ import annotations

import numpy as np
from dense import densify

from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.yardsticks.slicing import SlicedPredictor, Slicing
from apex_train.predictor import TorchSession


def test_one_window_over_everything_is_the_dense_pass(model, dataset) -> None:
    dense = Predictor(TorchSession(densify(model), 256, 256))
    image = dataset.read_image(0)
    (sliced,) = SlicedPredictor(dense, Slicing(256, size=(256, 256))).predict([image], 1.0, 0.001, 50)
    (whole,) = dense.predict([image], 1.0, max_detections=50)
    assert len(whole) == 50
    np.testing.assert_array_equal(sliced.boxes, whole.boxes)
    assert all(np.array_equal(a.bits, b.bits) for a, b in zip(sliced.masks, whole.masks, strict=True))


def test_several_windows_see_every_part_of_the_image(model, dataset) -> None:
    dense = Predictor(TorchSession(densify(model), 128, 128))
    image = dataset.read_image(0)
    (found,) = SlicedPredictor(dense, Slicing(128, size=(256, 256))).predict([image], 1.0, 0.001, 500)
    centres = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    quadrants = {(bool(x > image.shape[1] / 2), bool(y > image.shape[0] / 2)) for x, y in centres}
    assert len(quadrants) == 4 and (np.diff(found.scores) <= 0).all()
