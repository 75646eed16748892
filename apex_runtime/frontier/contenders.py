"""Who stands on the plot: an engine of ours with a line per way to choose its tiles, or a yardstick with a mark of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apex_runtime.backends.session import in_all
from apex_runtime.bundle.load import Opened
from apex_runtime.detections import Detections
from apex_runtime.evaluation.coco_ap import ImagePredictor
from apex_runtime.evaluation.sweep import TimedSession
from apex_runtime.frontier.choices import Line, by_coverage, forced, random_tiles
from apex_runtime.pipeline.predictor import Predictor, Prepared
from apex_runtime.routing.budget import Budget, parse_budget
from apex_runtime.routing.grid import content_tiles
from apex_runtime.yardsticks.slicing import SlicedPredictor, Slicing
from apex_runtime.yardsticks.yardstick import Yardstick

ALL, SLICED, YARDSTICK = Line("all tiles"), Line("sliced"), Line("yardstick")
PERIPHERAL, DENSE = Line("peripheral"), Line("dense")
WHOLE = parse_budget(1.0)


@dataclass(frozen=True)
class Wanted:
    """What every contender is asked: budgets below all, in ascending order; seeds of random tiles; what counts as a detection."""

    budgets: tuple[Budget, ...]
    seeds: int
    min_score: float
    limit: int


@dataclass(frozen=True)
class View:
    """An image (uint8 [h,w,3]) with its id and the boxes of its objects, float32 [n,4] xyxy in pixels."""

    image_HW3: np.ndarray
    image_id: int
    boxes: np.ndarray


class EngineContender:
    """An engine of ours. ``twins``: its peripheral and its dense twin, opened graphs with the same inputs that ignore the tiles.

    ``sliced``: also a pass over windows half as high as the shorter side, in which it looks at all tiles. There is one size of
    input, so an object in a window is shown about twice as large as in the whole image.
    """

    def __init__(self, title: str, path: Path, opened: Opened, twins: Mapping[Line, Opened], sliced: bool) -> None:
        self.title, self.path, self.opened, self.twins = title, path, opened, twins
        self._timed = TimedSession(opened.session)
        self._predictor = Predictor(self._timed)
        sessions = {line: TimedSession(twin.session) for line, twin in twins.items()}
        # what has no budget: who predicts, and whose calls are the graph's
        self._whole: dict[Line, tuple[ImagePredictor, TimedSession]] = {
            line: (Predictor(session), session) for line, session in sessions.items()
        }
        if sliced:
            size = opened.session.info.input.height, opened.session.info.input.width
            slicing = Slicing(side=min(size) // 2, size=size)
            self._whole[SLICED] = SlicedPredictor(self._predictor, slicing), self._timed
        self.tiles: dict[Line, list[int]] = {}

    @property
    def masks(self) -> bool:
        """Whether it answers with masks."""
        return True

    @property
    def predictor(self) -> ImagePredictor:
        """Whose ``info`` has the classes."""
        return self._predictor

    def lines(self, wanted: Wanted) -> list[Line]:
        """All its lines; those with forced tiles are of engines whose tiles have one level."""
        flat = self.opened.session.info.tiles.depth == 1
        kinds = [("router", None), *([*(("random", seed) for seed in range(wanted.seeds)), ("coverage", None)] if flat else [])]
        budgets = [Line(kind, budget.asked, seed) for budget in wanted.budgets for kind, seed in kinds]
        return [*budgets, ALL, *self._whole]

    def look(self, view: View, wanted: Wanted) -> Iterator[tuple[Line, Detections]]:
        """What every line finds in an image."""
        for budget in wanted.budgets:
            own = self._predictor.prepare(view.image_HW3, budget)
            choices = self._choices(view, own, budget, wanted)
            asked = [own, *(forced(own, choice) for choice in choices.values())]
            lines = [Line("router", budget.asked), *choices]
            for line in lines:
                self.tiles.setdefault(line, []).append(in_all(own.tiles))
            yield from zip(lines, self._detect(asked, wanted), strict=True)
        own = self._predictor.prepare(view.image_HW3, WHOLE)
        self.tiles.setdefault(ALL, []).append(in_all(own.tiles))
        yield ALL, self._detect([own], wanted)[0]
        for line, (predictor, _timed) in self._whole.items():
            yield line, predictor.predict([view.image_HW3], 1.0, wanted.min_score, wanted.limit)[0]

    def _choices(self, view: View, own: Prepared, budget: Budget, wanted: Wanted) -> dict[Line, Sequence[int]]:
        tiles = self.opened.session.info.tiles
        if tiles.depth > 1:
            return {}
        shown, count = np.flatnonzero(content_tiles(own.letterbox, tiles)), in_all(own.tiles)
        vertical, horizontal = own.letterbox.scales
        found: dict[Line, Sequence[int]] = {
            Line("random", budget.asked, seed): random_tiles(shown, count, seed, view.image_id) for seed in range(wanted.seeds)
        }
        scaled = view.boxes * np.array([horizontal, vertical] * 2, np.float32)
        return found | {Line("coverage", budget.asked): by_coverage(scaled, shown, tiles)[:count]}

    def _detect(self, asked: list[Prepared], wanted: Wanted) -> list[Detections]:
        keep = self._predictor.filter(wanted.min_score, wanted.limit, None)
        return [self._predictor.finish(each, item, keep) for each, item in zip(self._predictor.run(asked), asked, strict=True)]

    def timed_lines(self, wanted: Wanted) -> dict[Line, Budget]:
        """The lines with a time of their own, and their budgets: another choice of as many tiles costs what this one does."""
        own = {Line("router", budget.asked): budget for budget in wanted.budgets} | {ALL: WHOLE}
        return own | dict.fromkeys(self._whole, WHOLE)

    def once(self, line: Line, image_HW3: np.ndarray, budget: Budget, wanted: Wanted) -> tuple[list[Detections], float]:
        """One image from its pixels to its detections, and the milliseconds of the graph in it."""
        predictor, timed = self._whole.get(line, (self._predictor, self._timed))
        before = len(timed.milliseconds)
        found = predictor.predict([image_HW3], budget, min_score=wanted.min_score, max_detections=wanted.limit)
        return found, sum(timed.milliseconds[before:])


class YardstickContender:
    """A detector of another project: no budget, one mark."""

    def __init__(self, path: Path, yardstick: Yardstick) -> None:
        self.title, self.path, self.yardstick = yardstick.facts.title, path, yardstick
        self.tiles: dict[Line, list[int]] = {}

    @property
    def masks(self) -> bool:
        """Whether it answers with masks."""
        return "segm" in self.yardstick.facts.kinds

    @property
    def predictor(self) -> ImagePredictor:
        """Whose ``info`` has the classes."""
        return self.yardstick

    def lines(self, _wanted: Wanted) -> list[Line]:
        """Its one line."""
        return [YARDSTICK]

    def look(self, view: View, wanted: Wanted) -> Iterator[tuple[Line, Detections]]:
        """What it finds in an image."""
        yield YARDSTICK, self.yardstick.predict([view.image_HW3], 1.0, wanted.min_score, wanted.limit)[0]

    def timed_lines(self, _wanted: Wanted) -> dict[Line, Budget]:
        """Its one line."""
        return {YARDSTICK: WHOLE}

    def once(self, _line: Line, image_HW3: np.ndarray, budget: Budget, wanted: Wanted) -> tuple[list[Detections], float]:
        """One image from its pixels to its detections, and the milliseconds of the graph in it."""
        found = self.yardstick.predict([image_HW3], budget, wanted.min_score, wanted.limit)
        return found, self.yardstick.graph_milliseconds[-1]


Contender = EngineContender | YardstickContender
