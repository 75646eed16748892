"""The stopwatch of ``apex-rt bench``: what a call costs, at several numbers of tiles and images, in turn.

A turn is one call from files to detections, with the clock read at its joints, so one turn gives every stage. Every round gives
every cell a turn, beginning with another cell than the round before: what slows the machine for a while hits all alike, and round
r of one cell may be compared with round r of another.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np

from apex_runtime.backends.session import Session, Tiles
from apex_runtime.data.image import decode_image
from apex_runtime.evaluation.results import detections_to_results
from apex_runtime.evaluation.sweep import TimedSession
from apex_runtime.model_info import ModelInfo
from apex_runtime.own_time import waited_nanoseconds
from apex_runtime.pipeline.predictor import Filter, Predictor
from apex_runtime.routing.budget import Budget
from apex_runtime.routing.split import plan_tiles

# The parts of a turn in their order, and the times that contain one another, which are sums of them.
STAGES = ("decode", "letterbox", "copies", "graph", "postprocess")
TIMED = {"graph": ("graph",), "with_copies": ("copies", "graph"), "end_to_end": STAGES}
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
    """A cell of one engine and the milliseconds of its turns: one list for each of ``STAGES``, in the order of the rounds.

    ``waited``: of each stage, how long its thread was ready and had no core; zeros where the system does not tell.
    """

    cell: Cell
    engine: int = 0
    stages: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in STAGES})
    waited: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in STAGES})

    @property
    def turns(self) -> int:
        """How many turns it had."""
        return len(self.stages["graph"])

    def milliseconds(self, name: str) -> list[float]:
        """One of ``TIMED``, turn by turn."""
        return [sum(parts) for parts in zip(*(self.stages[stage] for stage in TIMED[name]), strict=True)]

    def own_milliseconds(self, name: str) -> list[float]:
        """``milliseconds`` without the waiting: what two engines are compared by on a machine that does other things too."""
        waited = [sum(parts) for parts in zip(*(self.waited[stage] for stage in TIMED[name]), strict=True)]
        return [max(wall - lost, wall / 1000) for wall, lost in zip(self.milliseconds(name), waited, strict=True)]


@dataclass(frozen=True)
class WarmUp:
    """The rounds before the clock counted, and whether the last two took about the same time."""

    rounds: int
    steady: bool
    seconds_of_last: float


class _Laps:
    """A stopwatch that is read at the end of every stage."""

    def __init__(self) -> None:
        self.taken, self.waited = dict.fromkeys(STAGES, 0.0), dict.fromkeys(STAGES, 0.0)
        self._lost, self._since = waited_nanoseconds(), time.perf_counter()

    def end(self, stage: str) -> None:
        """All since the end of the stage before was ``stage``."""
        now, lost = time.perf_counter(), waited_nanoseconds()
        self.taken[stage] += (now - self._since) * 1000
        if lost is not None and self._lost is not None:
            self.waited[stage] += (lost - self._lost) / 1e6
        self._lost, self._since = lost, time.perf_counter()


class Bench:
    """Times sessions on images: one engine, or two against each other.

    ``subjects``: each session with its cells. ``paths``: image files, at least one; each turn takes the next ones, from the
    first again. With several engines a turn is two calls of which the second counts: the first brings the engine's weights back
    into the caches and lets the threads of the other, which spin for a while on few cores, go to rest.
    """

    def __init__(self, subjects: Sequence[tuple[Session, Sequence[Cell]]], paths: Sequence[Path], stop: threading.Event) -> None:
        self.timed = [TimedSession(session) for session, _ in subjects]
        each = [[Measured(cell, engine) for cell in cells] for engine, (_, cells) in enumerate(subjects)]
        # the same cell of every engine side by side, so that what is compared was measured within a moment
        self.measured = [item for group in zip_longest(*each) for item in group if item is not None]
        self._predictors = [Predictor(timed) for timed in self.timed]
        self._paths = paths
        self._stop = stop

    def warm_up(self) -> WarmUp:
        """Untimed rounds until two in a row take about the same time; bounded. Raises ImageError, BackendError."""
        seconds: list[float] = []
        least, most = WARM_UP_ROUNDS
        while len(seconds) < most and not self._stop.is_set():
            started = time.perf_counter()
            for item in self.measured:
                self._turn(item, len(seconds))
            seconds.append(time.perf_counter() - started)
            if len(seconds) >= least and abs(seconds[-1] - seconds[-2]) <= STEADY * seconds[-2]:
                return WarmUp(len(seconds), True, seconds[-1])
        return WarmUp(len(seconds), False, seconds[-1] if seconds else 0.0)

    def run(self, rounds: int, progress: Progress, enough: Callable[[], bool] | None = None) -> None:
        """Rounds of turns, until they are done, ``enough`` says so after a round, or ``stop`` is set; what was measured stays."""
        count, done = len(self.measured), 0
        with progress(rounds * count) as report:
            for number in range(rounds):
                for item in self._order(number):
                    if self._stop.is_set():
                        return
                    for name, (taken, waited) in self._turn(item, number).items():
                        item.stages[name].append(taken)
                        item.waited[name].append(waited)
                    done += 1
                    report(done, 0)
                if enough is not None and enough():
                    return

    def _order(self, number: int) -> list[Measured]:
        """Of one round. Several engines: every order forwards and backwards, so that none always comes after the other."""
        turns, backwards = divmod(number, 2) if len(self.timed) > 1 else (number, 0)
        first = turns % len(self.measured)
        order = [*self.measured[first:], *self.measured[:first]]
        return order[::-1] if backwards else order

    def _turn(self, item: Measured, number: int) -> dict[str, tuple[float, float]]:
        if len(self.timed) > 1:
            self._stages(item, number)
        return self._stages(item, number)

    def _stages(self, item: Measured, number: int) -> dict[str, tuple[float, float]]:
        """Milliseconds of each of ``STAGES``, and how many of them its thread waited for a core."""
        cell, predictor, timed = item.cell, self._predictors[item.engine], self.timed[item.engine]
        laps = _Laps()
        batch = []
        for path in self._images(number, cell.batch):
            image = decode_image(path)
            laps.end("decode")
            batch.append(replace(predictor.prepare(image, cell.budget), tiles=cell.tiles))
            laps.end("letterbox")
        outputs = predictor.run(batch)
        laps.end("graph")
        for found, prepared in zip(outputs, batch, strict=True):
            for piece in predictor.iter_finish(found, prepared, Filter()):
                detections_to_results(piece, 1)
        laps.end("postprocess")
        around, graph = laps.taken["graph"], sum(timed.milliseconds[-cell.batch :])
        laps.taken["graph"] = graph
        laps.taken["copies"] = max(around - graph, 0.0)  # not below zero by rounding
        return {name: (laps.taken[name], laps.waited[name]) for name in STAGES}

    def _images(self, number: int, batch: int) -> list[Path]:
        first = number * batch
        return [self._paths[(first + place) % len(self._paths)] for place in range(batch)]


def ladder(count: int) -> tuple[int, ...]:
    """Numbers of tiles from 1 to all ``count``: denser where few are looked at."""
    return tuple(sorted({1, *(max(1, round(count * share)) for share in (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4)), count}))
