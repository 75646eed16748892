"""The graph of a bundle held against the exported one: the tiles it chooses, its average precision, its time.

Both run on the CPU by ONNX Runtime, on the same images at the same budgets, one image in memory at a time. Whatever pass made the
graph: here it is a graph like any other.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from apex_runtime.backends.ort import OrtSession
from apex_runtime.backends.reasons import ReasonCode, backend_error
from apex_runtime.backends.session import Session, Tiles
from apex_runtime.benchmark.turns import Clock, measure, ratio
from apex_runtime.bundle.fp32_record import BudgetRow, Measured, Milliseconds, Overlap, Precisions, Sizes
from apex_runtime.errors import UsageError
from apex_runtime.evaluation.coco_ap import detection_limit, predict_results
from apex_runtime.evaluation.score import score_results
from apex_runtime.machine import usable_cpus
from apex_runtime.model_info import ModelInfo
from apex_runtime.parity.decision import overlap
from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.precision.data import Image, Reported
from apex_runtime.precision.ranges import GoOn
from apex_runtime.routing.budget import Budget, parse_budget
from apex_runtime.routing.quadtree import flat_ids

BUDGETS = ("0.25", "1.0")
ROUNDS = 10  # in all, shared among the images that are timed
TIMED_IMAGES = 5
ABOUT_EQUAL = 0.02  # ratios that differ from 1 by less are not called slower: rounds of one graph differ by as much
_REMEDY = "Build with --precision fp32; to see where it begins, build with --no-report and run apex-rt parity on the bundle."


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two graphs: what it is called, what runs it, and the bytes of its file."""

    name: str
    session: Session
    bytes: int

    @classmethod
    def of_file(cls, name: str, path: Path, threads: int) -> Side:
        """A ``model.onnx`` in ONNX Runtime on the CPU. Raises ModelError, BackendError."""
        return cls(name, OrtSession(path, threads), path.stat().st_size)


def compare_files(exported: Path, built: Path, images: Reported, timed: bool, go_on: GoOn) -> Measured:
    """Compare two ``model.onnx`` files by ONNX Runtime on the CPU. Raises ModelError, and what ``compare`` raises."""
    threads = usable_cpus()
    fp32 = Side.of_file("the exported model", exported, threads)
    side = Side.of_file("the model of the bundle", built, threads)
    return compare(fp32, side, images, threads if timed else None, go_on)


def compare(
    fp32: Side, built: Side, images: Reported, threads: int | None, go_on: GoOn, clock: Clock = time.perf_counter
) -> Measured:
    """What ``built`` does differently on ``images``: a ``Comparison`` for one graph, which see."""
    return Comparison(fp32, images, threads, clock).measure(built, go_on)


class Comparison:
    """The exported graph on some images, looked at once, for any number of graphs that are held against it."""

    def __init__(self, fp32: Side, images: Reported, threads: int | None, clock: Clock = time.perf_counter) -> None:
        """``threads``: of all sessions, where their times mean something, else None. Raises UsageError without images."""
        if not images.items:
            raise UsageError(f"--data: {images.origin} has no images to compare with fp32 on.", "Add some, or give --no-report.")
        self._fp32, self._images, self._threads, self._clock = fp32, images, threads, clock
        self._timed = () if threads is None else images.items[:: math.ceil(len(images.items) / TIMED_IMAGES)]
        self._rounds = math.ceil(ROUNDS / len(self._timed)) if self._timed else 0
        self._seen: dict[str, _Seen] = {}

    def measure(self, built: Side, go_on: GoOn) -> Measured:
        """What ``built`` does differently. ``go_on(done, total)`` is asked before each step.

        Raises BackendError for an output that is not finite, DataError, KeyboardInterrupt when ``go_on`` says no.
        """
        steps = _Steps(go_on, self._total())
        rows = [self._budget(parse_budget(budget), built, steps) for budget in BUDGETS]
        return Measured(
            images=len(self._images.items),
            origin=self._images.origin,
            executed="simulated on ort-cpu" if self._threads is None else "ort-cpu",
            model_bytes=Sizes(fp32=self._fp32.bytes, built=built.bytes),
            threads=self._threads,
            rounds=self._rounds * len(self._timed) if self._timed else None,
            budgets=tuple(rows),
            remarks=tuple(_remarks(rows)),
        )

    def _total(self) -> int:
        """Steps of a measurement: all images for each side that was not looked at yet, and the turns of both."""
        looks = 2 * len(BUDGETS) - len(self._seen)
        return looks * len(self._images.items) + len(BUDGETS) * 2 * len(self._timed) * (self._rounds + 1)

    def _budget(self, budget: Budget, built: Side, steps: _Steps) -> BudgetRow:
        if budget.asked not in self._seen:
            self._seen[budget.asked] = _look(self._fp32, self._images, budget, steps)
        second = _look(built, self._images, budget, steps)
        milliseconds = _times(self._fp32, built, self._timed, budget, self._rounds, steps, self._clock) if self._timed else None
        return _row(budget, self._seen[budget.asked], second, milliseconds)


@dataclass
class _Steps:
    """How far a comparison is; asks before each step whether to go on."""

    go_on: GoOn
    total: int
    done: int = 0

    def next(self) -> None:
        if not self.go_on(self.done, self.total):
            raise KeyboardInterrupt
        self.done += 1


@dataclass(frozen=True, eq=False)
class _Seen:
    """What one side made of all images: the flat numbers of the tiles it chose, int64 [K] each, and COCO's figures, if any."""

    chosen: list[np.ndarray]
    figures: dict[str, float]


class _Watched:
    """A session for one image after the other that notes the tiles and refuses outputs that are not finite."""

    def __init__(self, side: Side, images: Sequence[Image], steps: _Steps) -> None:
        self._side, self._images, self._steps = side, images, steps
        self.chosen: list[np.ndarray] = []

    @property
    def info(self) -> ModelInfo:
        return self._side.session.info

    @property
    def name(self) -> str:
        return self._side.session.name

    def run(self, images: np.ndarray, tiles: Tiles, tile_bonus: np.ndarray) -> dict[str, np.ndarray]:
        self._steps.next()
        outputs = self._side.session.run(images, tiles, tile_bonus)
        for name, array in outputs.items():
            bad = int(np.count_nonzero(~np.isfinite(array)))
            if bad:
                where = f"{self._side.name} on {self._images[len(self.chosen)].name}"
                message = f"{where}: {bad} of {array.size} values of its output {name!r} are NaN or infinite."
                raise backend_error(ReasonCode.NON_FINITE_OUTPUT, message, remedy=_REMEDY)
        self.chosen.append(flat_ids(outputs["tile_ids"][0], outputs["tile_levels"][0], self.info.tiles))
        return outputs


def _look(side: Side, images: Reported, budget: Budget, steps: _Steps) -> _Seen:
    watched = _Watched(side, images.items, steps)
    predictor = Predictor(watched)
    if images.labels is None:
        for item in images.items:
            predictor.run([predictor.prepare(item.read(), budget)])
        return _Seen(watched.chosen, {})
    limit = detection_limit(images.labels.ground_truth())
    results = predict_results(predictor, images.labels, budget, max_detections=limit, batch=1)
    return _Seen(watched.chosen, score_results(images.labels, results, limit)["figures"])


def _times(
    fp32: Side, built: Side, images: Sequence[Image], budget: Budget, rounds: int, steps: _Steps, clock: Clock
) -> Milliseconds:
    """Both graphs in turn, image by image."""
    samples: dict[str, list[float]] = {"fp32": [], "built": []}
    for item in images:
        prepared = Predictor(fp32.session).prepare(item.read(), budget)
        feeds = prepared.image_HW3[None], prepared.tiles, prepared.bonus_N[None]
        subjects = {name: partial(side.session.run, *feeds) for name, side in (("fp32", fp32), ("built", built))}
        for name, values in measure(subjects, rounds, 1, steps.next, clock).items():
            samples[name] += values
    middle = {name: round(float(np.median(values)), 3) for name, values in samples.items()}
    return Milliseconds(**middle, ratio=round(ratio(samples["built"], samples["fp32"]), 4))


def _row(budget: Budget, fp32: _Seen, built: _Seen, milliseconds: Milliseconds | None) -> BudgetRow:
    shares = [overlap(*pair) for pair in zip(fp32.chosen, built.chosen, strict=True)]
    return BudgetRow(
        budget=budget.asked,
        tile_overlap=Overlap(mean=float(np.mean(shares)), worst=min(shares)),
        box_ap=_precisions(fp32, built, "mAP_bbox"),
        mask_ap=_precisions(fp32, built, "mAP_segm"),
        graph_milliseconds=milliseconds,
    )


def _precisions(fp32: _Seen, built: _Seen, figure: str) -> Precisions | None:
    """None without labels, and where the labels have no boxes or masks of that kind."""
    before, after = (side.figures.get(figure, -1.0) for side in (fp32, built))
    if before < 0:
        return None
    return Precisions(fp32=before, built=after, drop_points=round((before - after) * 100, 4))


def _remarks(rows: Sequence[BudgetRow]) -> Iterator[str]:
    slower = [
        f"{row.graph_milliseconds.ratio:.2f}x at budget {row.budget}"
        for row in rows
        if row.graph_milliseconds is not None and row.graph_milliseconds.ratio > 1 + ABOUT_EQUAL
    ]
    if slower:
        yield f"slower than fp32 here: {', '.join(slower)}"
