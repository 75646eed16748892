"""Which detections become labels: four limits, one after the other, and what becomes of those that fail one.

Legend: n detections of an image, S = 4 steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apex_runtime.detections import Detections
from apex_runtime.errors import UsageError
from apex_train.pseudo.quality import Quality

STEPS = ("score", "stability", "agreement", "consistency")


@dataclass(frozen=True)
class Limits:
    """The least of each figure that a label has, 0..1, and ``unsure``, the least score of what is not called background either.

    ``in_views``: the least score by which something counts as found again in a view; below ``score``, for a little less sure is
    still the same. Raises UsageError when ``unsure`` is above ``score``.
    """

    score: float = 0.5
    stability: float = 0.5
    agreement: float = 0.7
    consistency: float = 0.5
    unsure: float = 0.1
    in_views: float = 0.25

    def __post_init__(self) -> None:
        if self.unsure > self.score:
            message = f"--unsure-score {self.unsure}: above --min-score {self.score}."
            raise UsageError(message, "What is sure enough for a label is not unsure: lower it.")


@dataclass(frozen=True, eq=False)
class Judged:
    """The n detections of an image that score at least ``Limits.unsure`` and have a mask, best first, with their quality."""

    found: Detections
    quality: Quality

    def passed(self, limits: Limits) -> np.ndarray:
        """bool [S,n]: which detections are left after each of ``STEPS``; the last row are the labels."""
        figures = (self.found.scores, self.quality.stability_n, self.quality.agreement_n, self.quality.consistency_n)
        alone_Sn = np.stack([figure >= getattr(limits, step) for step, figure in zip(STEPS, figures, strict=True)])
        return np.logical_and.accumulate(alone_Sn, axis=0)
