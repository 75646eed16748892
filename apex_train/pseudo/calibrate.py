"""Limits chosen on a split with truth: those that keep the most right labels at a precision that is asked for.

Every combination of a coarse grid is tried. The figures say on which images they were chosen: on others they are a little lower,
and on images that the model was trained on they mean nothing. Legend: C candidates of all images, S = 4 steps of the choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.errors import DataError
from apex_runtime.pipeline.predictor import Predictor
from apex_train.pseudo.against_truth import Tally, has_masks, labels_in_truth
from apex_train.pseudo.choose import Judged, Limits
from apex_train.pseudo.judge import judge
from apex_train.pseudo.views import View
from apex_train.report.matching import match_image

SCORES = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9)
SHARES = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # of stability, agreement and consistency
UNSURE = 0.1
_IN_VIEWS = SCORES[0] / 2
_GRIDS = (SCORES, SHARES, SHARES, SHARES)  # in the order of STEPS


@dataclass(frozen=True, eq=False)
class Calibration:
    """The ``limits``, the precision ``wanted`` of them, the split, and ``truth``: how right they are on it (``Tally.report``)."""

    limits: Limits
    wanted: float
    split: str
    truth: dict[str, Any]

    def facts(self) -> dict[str, Any]:
        """For a report: the split that the limits were chosen on, and precision and recall there, with intervals."""
        last = self.truth["steps"][-1]
        figures = {name: last[name] for name in ("labels", "precision", "recall")}
        return {"split": self.split, "images": self.truth["images"], "wanted": self.wanted} | figures


def calibrate(
    predictor: Predictor,
    dataset: InstanceDataset,
    views: Sequence[View],
    wanted: float,
    on_image: Callable[[int, int], None] = lambda done, failed: None,
) -> Calibration:
    """The limits for a precision of ``wanted`` (0..1) at IoU 0.5 on a labelled split.

    Raises DataError when no combination reaches it, and what the readers of the data set raise.
    """
    label_of, by_mask = labels_in_truth(predictor.info.classes, dataset), has_masks(dataset)
    names = {category.name for category in dataset.categories}
    classes = [category.name for category in predictor.info.classes if category.name in names]
    loosest = Limits(score=SCORES[0], unsure=SCORES[0], in_views=_IN_VIEWS)
    seen: list[Judged] = []
    for index in range(len(dataset)):
        seen.append(judge(predictor, dataset.read_image(index), loosest, views, classes))
        on_image(len(seen), 0)
    matches = [match_image(each.found, dataset.instances(index), label_of, by_mask) for index, each in enumerate(seen)]
    figures_CS = np.concatenate([_figures(each) for each in seen])
    hit_C, ignored_C = (np.concatenate([getattr(match, name) for match in matches]) for name in ("hit", "ignored"))
    limits = _choose(figures_CS[~ignored_C], hit_C[~ignored_C], wanted, dataset)
    tally = Tally(limits, label_of, by_mask)
    for index, each in enumerate(seen):
        tally.add(each, dataset.instances(index))
    return Calibration(limits, wanted, dataset.split, tally.report())


def _figures(judged: Judged) -> np.ndarray:
    quality = judged.quality
    columns = (judged.found.scores, quality.stability_n, quality.agreement_n, quality.consistency_n)
    return np.stack([np.asarray(column, np.float64) for column in columns], axis=1)


def best_limits(figures_CS: np.ndarray, hit_C: np.ndarray, wanted: float) -> tuple[tuple[float, ...] | None, float]:
    """The combination with the most hits at a precision of at least ``wanted``, of equal ones the loosest; None when there is
    none. Also the best precision that any combination has, 0 without candidates.

    ``figures_CS`` float64 [C,4] in the order of ``STEPS``; ``hit_C`` bool [C]: which are right when all are kept. That is the
    cautious side: a candidate whose object a better one has taken counts as wrong even where the better one is left out.
    """
    hits, counts = (_passing(figures_CS[kept_C]) for kept_C in (hit_C, np.ones(len(hit_C), bool)))
    precision = hits / np.maximum(counts, 1)
    reached = np.where(precision >= wanted, hits, 0)
    if not reached.any():
        return None, float(precision.max())
    place = np.unravel_index(int(reached.argmax()), reached.shape)  # of equal ones the first, whose limits are the loosest
    return tuple(grid[index] for grid, index in zip(_GRIDS, place, strict=True)), float(precision.max())


def _passing(figures_CS: np.ndarray) -> np.ndarray:
    """int64, an axis per step of the choice: how many candidates pass each combination of limits."""
    # Which is the highest limit of each grid that a candidate passes; 0: none, not even the lowest.
    passed_SC = [np.searchsorted(grid, figures_CS[:, place], side="right") for place, grid in enumerate(_GRIDS)]
    counts = np.zeros([len(grid) + 1 for grid in _GRIDS], np.int64)
    np.add.at(counts, tuple(passed_SC), 1)
    for axis in range(counts.ndim):
        counts = np.flip(np.flip(counts, axis).cumsum(axis), axis)
    return counts[1:, 1:, 1:, 1:]


def _choose(figures_CS: np.ndarray, hit_C: np.ndarray, wanted: float, dataset: InstanceDataset) -> Limits:
    found, highest = best_limits(figures_CS, hit_C, wanted)
    if found is None:
        message = f"--precision {wanted:g}: no limits reach it on the split {dataset.split}; the best there is {highest:.2f}."
        raise DataError(message, "Ask for less, or train a better model first.", path=dataset.source)
    score, stability, agreement, consistency = found
    return Limits(score, stability, agreement, consistency, unsure=min(UNSURE, score), in_views=_IN_VIEWS)
