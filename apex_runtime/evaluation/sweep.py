"""The figures of one engine on one data set at several budgets, with the time and the memory each budget takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from apex_runtime.backends.session import Session, Tiles, in_all
from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.evaluation.coco_ap import detection_limit, predict_results
from apex_runtime.evaluation.memory import peak_resident_bytes
from apex_runtime.evaluation.score import score_results
from apex_runtime.model_info import ModelInfo
from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.routing.budget import Budget

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

    @property
    def peak_memory_bytes(self) -> int | None:
        """The most memory of the device held at once, where the session tells: ``peak_memory_bytes`` is optional."""
        return getattr(self._session, "peak_memory_bytes", None)

    def run(self, images: np.ndarray, tiles: Tiles, tile_bonus: np.ndarray) -> dict[str, np.ndarray]:
        """As ``Session.run``; every image of a batch gets an equal share of the time."""
        started = time.perf_counter()
        outputs = self._session.run(images, tiles, tile_bonus)
        share = (time.perf_counter() - started) * 1000 / len(images)
        self.milliseconds += [share] * len(images)
        self.tiles += [in_all(tiles)] * len(images)
        return outputs


@dataclass
class _Clock:
    """Time per image between the reports of ``predict_results``: every image of a batch gets an equal share."""

    milliseconds: list[float] = field(default_factory=list)
    _since: float = field(default_factory=time.perf_counter)

    def tick(self, done: int) -> None:
        count = done - len(self.milliseconds)
        self.milliseconds += [(time.perf_counter() - self._since) * 1000 / count] * count

    def resume(self) -> None:
        self._since = time.perf_counter()


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
    """One row per budget: the budget, tiles per image, what ``score_results`` says, and what it cost.

    ``graph_milliseconds`` is the graph alone; ``image_milliseconds`` and ``images_per_second`` are of everything from the file on
    disk to the COCO results: decode, letterbox, graph, boxes, masks, run lengths, one batch after the other. The first batch is
    predicted once before, untimed. ``peak_memory`` is of the process since it started, and of the device where the session tells.
    Raises DataError, BackendError, UsageError.
    """
    limit = options.max_detections or detection_limit(dataset.ground_truth())
    return [_row(session, dataset, budget, options, limit, progress) for budget in budgets]


def _row(
    session: Session, dataset: InstanceDataset, budget: Budget, options: SweepOptions, limit: int, progress: Progress | None
) -> dict[str, Any]:
    _warm_up(session, dataset, budget, options)
    timed, clock = TimedSession(session), _Clock()

    def on_images(done: int) -> None:
        clock.tick(done)
        if progress is not None:
            progress(budget.asked, done)
        clock.resume()

    results = predict_results(
        Predictor(timed),
        dataset,
        budget,
        min_score=options.min_score,
        max_detections=limit,
        batch=options.batch,
        on_images=on_images,
    )
    memory = {"resident_bytes": peak_resident_bytes(), "device_bytes": timed.peak_memory_bytes}
    scores = score_results(dataset, results, limit, options.bootstrap)
    return {
        "budget": budget.asked,
        "tiles_per_image": round(statistics.fmean(timed.tiles), 3),
        **scores,
        "graph_milliseconds": _quantiles(timed.milliseconds),
        "image_milliseconds": _quantiles(clock.milliseconds),
        "images_per_second": round(1000 / statistics.fmean(clock.milliseconds), 3),
        "peak_memory": memory,
    }


def _warm_up(session: Session, dataset: InstanceDataset, budget: Budget, options: SweepOptions) -> None:
    """The first call with a number of tiles reserves memory; it would be the p95 of a small set."""
    images = [dataset.read_image(index) for index in range(min(options.batch, len(dataset)))]
    Predictor(session).predict(images, budget, min_score=options.min_score)


def _quantiles(milliseconds: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(milliseconds), 3), "p95": round(float(np.percentile(milliseconds, 95)), 3)}
