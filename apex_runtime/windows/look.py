"""A scene through the engine, in one pass over its windows or in two, with one budget over all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from apex_runtime.clock import milliseconds_since
from apex_runtime.data.scenes.windows import Window
from apex_runtime.errors import UsageError
from apex_runtime.model_info import ModelInfo
from apex_runtime.pipeline.lanes import Lanes
from apex_runtime.pipeline.predictor import Filter, Predictor
from apex_runtime.postprocess.letterbox import Letterbox
from apex_runtime.routing.budget import Budget, parse_budget
from apex_runtime.routing.grid import content_tiles
from apex_runtime.windows.found import Found
from apex_runtime.windows.passes import LookedWindow, Milliseconds, Passes, Read, Steer
from apex_runtime.windows.seams import join
from apex_runtime.windows.share import share_out

_NO_DEADLINE = "Give tiles, a share or gflops for large images, or do not cut them: --window none."
_ONE, _ALL = Budget("1", "tiles", 1), Budget("1.0", "share", 1.0)


@dataclass(frozen=True)
class SceneLook:
    """What a scene gave: what is ``found`` in each window once its masks are made, how it was looked at, tiles that the budget
    means and that were spent in all passes, how many windows were looked at ``twice``, how many tiles show the scene."""

    found: Callable[[], list[Found]]
    windows: list[LookedWindow]
    planned: int
    spent: int
    twice: int
    n_content: int
    milliseconds: Milliseconds
    most: int | None

    def joined(self) -> Found:
        """The objects of the scene, best first. It needs no graph: another image can have that meanwhile."""
        started = time.perf_counter()
        found = join(self.found(), [one.window for one in self.windows]).head(self.most)
        self.milliseconds.post += milliseconds_since(started)
        return found


def look_at_scene(
    predictor: Predictor,
    windows: Sequence[Window],
    size: tuple[int, int],
    read: Read,
    budget: Budget,
    wanted: Filter,
    steer: Steer | None = None,
    batch: int = 1,
    lanes: Lanes | None = None,
) -> SceneLook:
    """The scene of ``size`` (height, width) that ``windows`` cover. Raises ImageError, BackendError, UsageError, Interrupted."""
    passes = Passes(predictor, wanted, windows, size, read, steer, batch, lanes)
    content_W = _content(predictor.info, windows)
    planned, everywhere = plan_scene(budget, content_W, predictor.info)
    places = range(len(windows))
    passes.run(places, [everywhere or _ONE] * len(windows))
    again: list[int] = []
    if everywhere is None:
        shares = share_out(passes.utilities, planned)
        again = sorted((place for place in places if shares[place]), key=lambda place: shares[place])
        passes.run(again, [Budget(str(shares[place]), "tiles", shares[place]) for place in again])
    n_content, most = int(content_W.sum()), wanted.max_detections
    return SceneLook(passes.found, passes.looked, planned, passes.spent, len(again), n_content, passes.times, most)


def plan_scene(budget: Budget, content_W: np.ndarray, info: ModelInfo) -> tuple[int, Budget | None]:
    """Tiles of a scene whose windows have ``content_W`` content tiles (int64 [W]), and the budget of every window where one pass
    is enough: one window, all tiles, or as many of every level as the user said. Raises UsageError when GFLOPs do not reach."""
    n_content, count = int(content_W.sum()), len(content_W)
    if count == 1:  # nothing to share out
        return budget.tiles_for(n_content, n_content, info), budget
    if budget.limit is not None:
        raise UsageError(f"budget {budget.asked}: its limit is of one image, not of {count} windows.", "Limit it for the scene.")
    if budget.levels:
        return min(n_content, int(budget.value) * count), budget
    if parse_budget(budget.asked).kind == "ms":  # tiles by now, but those of one image
        raise UsageError(f"budget {budget.asked}: a deadline says nothing of {count} windows.", _NO_DEADLINE)
    if budget.kind == "gflops":
        budget = replace(budget, value=_without_passes(budget, count, info))
    planned = budget.tiles_for(n_content, n_content, info)
    return planned, _ALL if planned == n_content else None


def _without_passes(budget: Budget, count: int, info: ModelInfo) -> float:
    """GFLOPs as ``tiles_for`` wants them for one image: less the bases of a first pass and, at worst, of a second one."""
    least = count * (2 * info.gflops.base + info.gflops.per_tile)
    if budget.value < least:
        message = f"budget {budget.asked}: two passes over {count} windows with one tile each cost {least:.3g}gflops."
        raise UsageError(message, "Give more, or cut larger windows: --window.")
    return budget.value - (2 * count - 1) * info.gflops.base


def _content(info: ModelInfo, windows: Sequence[Window]) -> np.ndarray:
    """int64 [W]: how many tiles show each window."""
    boxes = (Letterbox(window.height, window.width, info.input.height, info.input.width) for window in windows)
    return np.array([int(content_tiles(box, info.tiles).sum()) for box in boxes], np.int64)
