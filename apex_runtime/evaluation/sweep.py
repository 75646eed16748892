"""The figures of one engine on one data set at several budgets, with the time each budget takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from apex_runtime.backends.session import Session
from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.evaluation.bootstrap import bootstrap_interval, matches_of
from apex_runtime.evaluation.coco_ap import IOU_TYPES, detection_limit, predict_results, summarise
from apex_runtime.evaluation.coco_matching import run_coco_eval
from apex_runtime.model_info import ModelInfo
from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.routing.budget import Budget

_BOOTSTRAPPED = ("mAP", "AP50")

# budget as asked, images done
Progress = Callable[[str, int], None]


class TimedSession:
    """A session that notes how long each call takes and how many tiles it was given."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.milliseconds: list[float] = []
        self.tiles: list[int] = []

    @property
    def info(self) -> ModelInfo:
        """The model's passport."""
        return self._session.info

    @property
    def name(self) -> str:
        """What executes."""
        return self._session.name

    def run(self, images: np.ndarray, tiles: int, tile_bonus: np.ndarray) -> dict[str, np.ndarray]:
        """As ``Session.run``; every image of a batch gets an equal share of the time."""
        started = time.perf_counter()
        outputs = self._session.run(images, tiles, tile_bonus)
        share = (time.perf_counter() - started) * 1000 / len(images)
        self.milliseconds += [share] * len(images)
        self.tiles += [tiles] * len(images)
        return outputs


@dataclass(frozen=True)
class SweepOptions:
    """``max_detections`` None follows the data; ``bootstrap`` resamples (0 = no intervals)."""

    min_score: float = 0.001
    max_detections: int | None = None
    batch: int = 1
    bootstrap: int = 0


def sweep(
    session: Session, dataset: InstanceDataset, budgets: Sequence[Budget], options: SweepOptions, progress: Progress | None = None
) -> list[dict[str, Any]]:
    """One row per budget: figures (fractions), 95 % intervals if asked, tiles per image, milliseconds of the graph per image.

    Raises DataError, BackendError, UsageError.
    """
    limit = options.max_detections or detection_limit(dataset.ground_truth())
    return [_row(session, dataset, budget, options, limit, progress) for budget in budgets]


def _row(
    session: Session, dataset: InstanceDataset, budget: Budget, options: SweepOptions, limit: int, progress: Progress | None
) -> dict[str, Any]:
    timed = TimedSession(session)
    results = predict_results(
        Predictor(timed),
        dataset,
        budget,
        min_score=options.min_score,
        max_detections=limit,
        batch=options.batch,
        on_images=None if progress is None else lambda done: progress(budget.asked, done),
    )
    figures: dict[str, float] = {}
    intervals: dict[str, list[float]] = {}
    for iou_type in IOU_TYPES:
        evaluator = run_coco_eval(dataset.ground_truth(), results, iou_type, limit, None)
        figures |= summarise(evaluator)
        if options.bootstrap:
            matches = matches_of(evaluator)
            for figure in _BOOTSTRAPPED:
                found = bootstrap_interval(matches, figure, samples=options.bootstrap)
                intervals[f"{figure}_{iou_type}"] = [found.low, found.high]
    return {
        "budget": budget.asked,
        "tiles_per_image": round(statistics.fmean(timed.tiles), 3),
        "figures": figures,
        "intervals": intervals,
        "graph_milliseconds": {
            "median": round(statistics.median(timed.milliseconds), 3),
            "p95": round(float(np.percentile(timed.milliseconds, 95)), 3),
        },
        "detections": len(results),
    }
