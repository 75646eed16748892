"""How far a model and the annotations of an image agree.

Legend: G annotations of an image, D detections in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apex_runtime.data.dataset import Instances
from apex_runtime.detections import Detections
from apex_train.pseudo.views import picked
from apex_train.report.matching import MIN_IOU, overlaps


@dataclass(frozen=True, eq=False)
class Agreement:
    """``quality`` float64 [G] in 0..1: the best IoU of each annotation with a detection of its class, NaN of crowd regions.

    ``unlabelled``: the detections, best first, that no annotation of their class explains. The score of a detection is no part
    of the quality: a faint object that is annotated where the model sees it is annotated well.
    """

    quality: np.ndarray
    unlabelled: Detections

    @property
    def mean(self) -> float | None:
        """Of the annotations that are no crowds; None without any."""
        known = self.quality[~np.isnan(self.quality)]
        return float(known.mean()) if len(known) else None


def agree(found: Detections, truth: Instances, label_of: dict[int, int], by_mask: bool, sure: float) -> Agreement:
    """Compare what is found in an image with what is annotated there.

    ``label_of``: the label in ``truth`` of a label of the model; ``by_mask``: overlaps of masks, else of boxes. A detection is
    unlabelled that scores at least ``sure`` and overlaps no annotation of its class by IoU 0.5, nor lies in a crowd region by
    half: one at the place where a shifted annotation should be is, too.
    """
    size = found.letterbox.source_height, found.letterbox.source_width
    iou_DG = overlaps(found, truth, truth.crowd, size, by_mask)
    same_DG = np.array([label_of.get(int(label), -1) for label in found.labels], np.int64)[:, None] == truth.labels[None, :]
    explained_D = np.where(same_DG | truth.crowd, iou_DG, 0.0).max(axis=1, initial=0.0) >= MIN_IOU
    quality_G = np.where(same_DG, iou_DG, 0.0).max(axis=0, initial=0.0)
    drawn_D = np.array([mask.area > 0 for mask in found.masks], bool) if by_mask else np.ones(len(found), bool)
    unlabelled = np.flatnonzero((found.scores >= sure) & ~explained_D & drawn_D)
    return Agreement(np.where(truth.crowd, np.nan, quality_G), picked(found, unlabelled))
