"""One image through the model, as it is and in every view of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.routing.budget import parse_budget
from apex_train.pseudo.choose import Judged, Limits
from apex_train.pseudo.quality import Quality, agreement, consistency, stability
from apex_train.pseudo.views import View, picked

_ALL_TILES = parse_budget(1.0)  # a label is made once and learned from often: nothing is saved on it


def judge(
    predictor: Predictor, image_hw3: np.ndarray, limits: Limits, views: Sequence[View], classes: Sequence[str] | None = None
) -> Judged:
    """What the model finds in an image, uint8 [h,w,3] RGB, and how far it can be believed. ``classes``: names of those to look
    for, None for all. Raises ImageError, BackendError.
    """
    wanted = predictor.filter(limits.unsure, None, classes)
    prepared = predictor.prepare(image_hw3, _ALL_TILES)
    (outputs,) = predictor.run([prepared])
    found = predictor.finish(outputs, prepared, wanted)
    stability_n = stability(predictor, outputs, prepared, wanted)
    kept_n = np.flatnonzero([mask.area > 0 for mask in found.masks])
    found = picked(found, kept_n)
    height, width = image_hw3.shape[:2]
    others = [view.back(predictor.predict([view.of(image_hw3)], 1.0, limits.in_views)[0], height, width) for view in views]
    return Judged(found, Quality(stability_n[kept_n], agreement(found), consistency(found, others)))
