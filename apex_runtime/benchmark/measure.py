"""The stopwatch of ``apex-rt bench``: what a call costs, at several numbers of tiles and images, in turn.

A turn is one call from files to detections, with the clock read at its joints, so one turn gives all three times and each
contains the one before. Every round gives every cell a turn, beginning with another cell than the round before: what slows the
machine for a while hits all alike, and round r of one cell may be compared with round r of another.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from apex_runtime.backends.session import Session, Tiles
from apex_runtime.data.image import decode_image
from apex_runtime.evaluation.results import detections_to_results
from apex_runtime.evaluation.sweep import TimedSession
from apex_runtime.model_info import ModelInfo
from apex_runtime.pipeline.predictor import Filter, Predictor, Prepared
from apex_runtime.routing.budget import Budget
from apex_runtime.routing.split import plan_tiles

TIMED = ("graph", "with_copies", "end_to_end")
WARM_UP_ROUNDS = (2, 8)  # at least and at most
STEADY = 0.1  # two rounds of warm-up that differ by less are the end of it

# what ``apex_runtime.cli.progress.counter`` gives for a number of turns; called with (done, failed)
Progress = Callable[[int], AbstractContextManager[Callable[[int, int], None]]]


@dataclass(frozen=True)
class Cell:
    """What is timed: a budget, the tiles it means for an image that fills the input, and the images of one call."""

    budget: Budget
    tiles: Tiles
    batch: int

    @classmethod
    def of(cls, budget: Budget, batch: int, info: ModelInfo) -> Cell:
        """Every tile is taken for content, so every image costs the same. Raises UsageError when the budget cannot be met."""
        return cls(budget, plan_tiles(budget, np.ones(info.tiles.count, bool), info), batch)


@dataclass(eq=False)
class Measured:
    """A cell and the milliseconds of its turns: one list for each of ``TIMED``, in the order of the rounds."""

    cell: Cell
    milliseconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in TIMED})

    @property
    def turns(self) -> int:
        """How many turns it had."""
        return len(self.milliseconds["graph"])


@dataclass(frozen=True)
class WarmUp:
    """The rounds before the clock counted, and whether the last two took about the same time."""

    rounds: int
    steady: bool
    seconds_of_last: float


class Bench:
    """Times a session on images. ``paths``: image files, at least one; each turn takes the next ones, from the first again."""

    def __init__(self, session: Session, paths: Sequence[Path], cells: Sequence[Cell], stop: threading.Event) -> None:
        self.timed = TimedSession(session)
        self.measured = [Measured(cell) for cell in cells]
        self._predictor = Predictor(self.timed)
        self._paths = paths
        self._stop = stop

    def warm_up(self) -> WarmUp:
        """Untimed rounds until two in a row take about the same time; bounded. Raises ImageError, BackendError."""
        seconds: list[float] = []
        least, most = WARM_UP_ROUNDS
        while len(seconds) < most and not self._stop.is_set():
            started = time.perf_counter()
            for item in self.measured:
                self._turn(item.cell, len(seconds))
            seconds.append(time.perf_counter() - started)
            if len(seconds) >= least and abs(seconds[-1] - seconds[-2]) <= STEADY * seconds[-2]:
                return WarmUp(len(seconds), True, seconds[-1])
        return WarmUp(len(seconds), False, seconds[-1] if seconds else 0.0)

    def run(self, rounds: int, progress: Progress) -> None:
        """Rounds of turns, until they are done or ``stop`` is set; what was measured until then stays."""
        count, done = len(self.measured), 0
        with progress(rounds * count) as report:
            for number in range(rounds):
                for place in range(count):
                    if self._stop.is_set():
                        return
                    item = self.measured[(number + place) % count]
                    for name, value in zip(TIMED, self._turn(item.cell, number), strict=True):
                        item.milliseconds[name].append(value)
                    done += 1
                    report(done, 0)

    def _turn(self, cell: Cell, number: int) -> tuple[float, float, float]:
        """Milliseconds of the graph alone, with the copies around it, and from files to detections."""
        started = time.perf_counter()
        batch = [self._prepare(path, cell) for path in self._images(number, cell.batch)]
        ready = time.perf_counter()
        outputs = self._predictor.run(batch)
        looked = time.perf_counter()
        for found, prepared in zip(outputs, batch, strict=True):
            for piece in self._predictor.iter_finish(found, prepared, Filter()):
                detections_to_results(piece, 1)
        finished = time.perf_counter()
        graph = sum(self.timed.milliseconds[-cell.batch :])
        return graph, (looked - ready) * 1000, (finished - started) * 1000

    def _prepare(self, path: Path, cell: Cell) -> Prepared:
        return replace(self._predictor.prepare(decode_image(path), cell.budget), tiles=cell.tiles)

    def _images(self, number: int, batch: int) -> list[Path]:
        first = number * batch
        return [self._paths[(first + place) % len(self._paths)] for place in range(batch)]


def ladder(count: int) -> tuple[int, ...]:
    """Numbers of tiles from 1 to all ``count``: denser where few are looked at."""
    return tuple(sorted({1, *(max(1, round(count * share)) for share in (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4)), count}))
