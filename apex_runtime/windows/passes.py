"""One pass of the graph over windows of a scene: read ahead, run, post-processed behind.

Only a few windows are in memory at a time, and of what was found only boxes and packed masks.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from apex_runtime.clock import milliseconds_since
from apex_runtime.data.scenes.windows import Window
from apex_runtime.detections import Detections
from apex_runtime.pipeline.lanes import Lanes
from apex_runtime.pipeline.predictor import Filter, Predictor, Prepared
from apex_runtime.postprocess.letterbox import Letterbox
from apex_runtime.routing.budget import Budget
from apex_runtime.routing.grid import content_tiles
from apex_runtime.routing.quadtree import flat_utilities
from apex_runtime.routing.selection import MAX_UTILITY
from apex_runtime.windows.found import Found, found_in

_AHEAD = 4  # windows that are read, or finished, beside the one in the graph
_UNPACKED = 32  # windows whose masks are not made yet: a few hundred kilobytes each

_Outputs = tuple[list[dict[str, np.ndarray]], float]  # of each window of a call, and its milliseconds
Read = Callable[[Window], np.ndarray]  # pixels uint8 [h,w,3] of a window
Steer = Callable[[Window, Prepared], np.ndarray]  # float32 [N]: the ``tile_bonus`` of a window


class Interrupted(Exception):
    """The scene was left before its end, because the run stops."""


@dataclass(frozen=True)
class LookedWindow:
    """How one window was looked at last: the tiles that ran, by id and level, int64 [K] each."""

    window: Window
    letterbox: Letterbox
    tile_ids: np.ndarray
    tile_levels: np.ndarray


@dataclass
class Milliseconds:
    """Work for the scene: reading with letterboxing, the graph, post-processing with the joining of seams."""

    decode: float = 0.0
    graph: float = 0.0
    post: float = 0.0


class Passes:
    """The state of one scene: what was found in each window so far, how it was looked at, and the ``utilities`` of its content
    tiles, float [n] each, with the bonus that steers them."""

    def __init__(
        self,
        predictor: Predictor,
        wanted: Filter,
        windows: Sequence[Window],
        size: tuple[int, int],
        read: Read,
        steer: Steer | None = None,
        batch: int = 1,
        lanes: Lanes | None = None,
    ) -> None:
        """``size``: height and width of the scene; ``batch``: windows of one graph call; ``lanes``: where it is made."""
        self._predictor, self._wanted, self._windows, self._size = predictor, wanted, windows, size
        self._read, self._steer, self._batch, self._lanes = read, steer, batch, lanes or Lanes()
        self._found = [Found.none()] * len(windows)
        self._unpacked: dict[int, Detections] = {}
        self.utilities: list[np.ndarray] = [np.zeros(0)] * len(windows)
        self.times = Milliseconds()
        self.spent = 0
        self._looked: dict[int, LookedWindow] = {}

    def found(self) -> list[Found]:
        """What was found in each window by the last look at it."""
        self._pack(0)
        return self._found

    @property
    def looked(self) -> list[LookedWindow]:
        """How each window was looked at last, in the order of the windows."""
        return [self._looked[place] for place in sorted(self._looked)]

    def run(self, places: Sequence[int], budgets: Sequence[Budget]) -> None:
        """Look at the windows ``places`` with a budget each; what was found there before is replaced.

        Raises ImageError, BackendError, Interrupted.
        """
        with ThreadPoolExecutor(1, "apex-windows") as readers, ThreadPoolExecutor(1, "apex-seams") as finishers:
            pending: deque[Future[None]] = deque()
            for group in _groups(self._ahead(readers, places, budgets), self._batch):
                looked = self._lanes.begin(self._look, [prepared for _place, prepared in group])
                if looked is None:
                    raise Interrupted
                pending.append(finishers.submit(self._finish_all, group, looked))
                while len(pending) > _AHEAD:
                    pending.popleft().result()
            for future in pending:
                future.result()

    def _ahead(
        self, pool: ThreadPoolExecutor, places: Sequence[int], budgets: Sequence[Budget]
    ) -> Iterator[tuple[int, Prepared]]:
        """The windows in their order, a few of them being read while the graph runs."""
        waiting: deque[tuple[int, Future[Prepared]]] = deque()
        for place, budget in zip(places, budgets, strict=True):
            waiting.append((place, pool.submit(self._prepare, place, budget)))
            if len(waiting) > _AHEAD:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()

    def _prepare(self, place: int, budget: Budget) -> Prepared:
        started = time.perf_counter()
        window = self._windows[place]
        prepared = self._predictor.prepare(self._read(window), budget)
        if self._steer is not None:
            prepared = replace(prepared, bonus_N=self._steer(window, prepared))
        self.times.decode += milliseconds_since(started)
        return prepared

    def _look(self, batch: Sequence[Prepared]) -> _Outputs:
        started = time.perf_counter()
        return self._predictor.run(batch), milliseconds_since(started)

    def _finish_all(self, group: Sequence[tuple[int, Prepared]], looked: Future[_Outputs]) -> None:
        outputs, milliseconds = looked.result()
        self.times.graph += milliseconds
        for (place, prepared), found in zip(group, outputs, strict=True):
            self._finish(place, prepared, found)

    def _finish(self, place: int, prepared: Prepared, outputs: dict[str, np.ndarray]) -> None:
        started = time.perf_counter()
        window = self._windows[place]
        detections = self._predictor.finish(outputs, prepared, self._wanted)
        self._unpacked.pop(place, None)
        self._unpacked[place] = detections
        self._pack(_UNPACKED)
        self._looked[place] = LookedWindow(window, prepared.letterbox, detections.tile_ids, detections.tile_levels)
        self.spent += len(detections.tile_ids)
        utilities = flat_utilities({name: array[None] for name, array in outputs.items()}, self._predictor.info.tiles)[0]
        shown = content_tiles(prepared.letterbox, self._predictor.info.tiles)
        self.utilities[place] = (np.clip(utilities, -MAX_UTILITY, MAX_UTILITY) + prepared.bonus_N)[shown]
        self.times.post += milliseconds_since(started)

    def _pack(self, most: int) -> None:
        """Make the masks of the windows that have waited longest; the others may be looked at once more before that."""
        while len(self._unpacked) > most:
            place = next(iter(self._unpacked))
            self._found[place] = found_in(self._unpacked.pop(place), self._windows[place], *self._size)


def _groups(prepared: Iterator[tuple[int, Prepared]], batch: int) -> Iterator[list[tuple[int, Prepared]]]:
    """Neighbours in the order that have the same K, at most ``batch`` of them."""
    group: list[tuple[int, Prepared]] = []
    for item in prepared:
        if group and (len(group) == batch or group[0][1].tiles != item[1].tiles):
            yield group
            group = []
        group.append(item)
    if group:
        yield group
