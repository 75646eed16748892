"""The Python face of the runtime: ``engine = apex_runtime.load("bundle/")``, then ``engine.predict(...)``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from apex_runtime.backends.session import in_all, per_level
from apex_runtime.bundle.load import Opened, open_engine
from apex_runtime.data.image import decode_image
from apex_runtime.detections import Detections
from apex_runtime.errors import ModelError, UsageError
from apex_runtime.in_turn import in_turn
from apex_runtime.model_info import ModelInfo
from apex_runtime.pipeline.predictor import MAX_BATCH, Filter, Predictor, Prepared
from apex_runtime.request import ARRAYS, AnyBudget, Image, budgets_of, images_of, with_budgets
from apex_runtime.result import BudgetUse, Result
from apex_runtime.routing.budget import Budget, parse_budget
from apex_runtime.routing.planner import planned
from apex_runtime.scene_result import SceneResult, scene_result
from apex_runtime.scene_source import scene_of, whole, windowing_of
from apex_runtime.windows.look import look_at_scene

DEFAULT_ENGINE = "nuclei-nano"


def default_engine() -> Path:
    """The folder of the engine that comes with this package. Raises ModelError when it is not installed."""
    folder = Path(str(files("apex_engines"))) / DEFAULT_ENGINE
    if not (folder / "manifest.json").is_file():
        raise ModelError(
            f"{folder}: the default engine is not part of this installation.", "Name an engine: --engine BUNDLE or model.onnx."
        )
    return folder


@dataclass(frozen=True, eq=False)
class _Ready:
    """An image that waits for the graph; its pixels lie in ``prepared``, scaled."""

    source: Path | None
    budget: Budget
    prepared: Prepared


class Engine:
    """An opened engine. Threads may share it: results are those of one thread.

    Reading, scaling and post-processing of each call go on in its own thread. So does ONNX Runtime, which takes several calls at
    once; of a backend that does not say so, one call at a time runs its graph and the others wait (``in_turn``). An iterator that
    ``predict`` returned belongs to one thread, as any generator does.
    """

    def __init__(self, opened: Opened, threads: int | None = None, device: str = "cpu", path: str | Path = "ENGINE") -> None:
        """``threads``, ``device`` and ``path`` as the engine was opened: the latency table of a deadline is for just these."""
        self.opened = opened
        self._threads, self._device, self._path = threads, device, path
        self._predictor = Predictor(in_turn(opened.session))

    @property
    def info(self) -> ModelInfo:
        """Classes, input size, tile grid and the rest of the model's passport."""
        return self._predictor.info

    def predict(
        self,
        sources: Image | Iterable[Image],
        budget: AnyBudget | Sequence[AnyBudget] = 1.0,
        min_score: float = 0.001,
        max_detections: int | None = None,
        classes: Sequence[str] | None = None,
        batch: int | None = None,
    ) -> Iterator[Result]:
        """The result of each image, in their order, while the images are read.

        ``sources``: a file, a folder with all below it, a pattern (``scans/**/*.png``), an array uint8 [h,w,3] in RGB order (not
        OpenCV's BGR), or any iterable of files and arrays. ``budget``: 16 = tiles, 0.25 = share of the image's tiles, 1.0 = all,
        or text as on the command line; or a list of them, one per image. A deadline (``8ms``) needs the table that ``apex-rt
        bench`` writes, and images go one by one then. ``batch``: how many images are read before those of
        equal K go through the graph together; left out it is 8, and 1 for an iterable that is no list: its next item is then
        taken only when its turn comes. Scores may differ in the last digits from one batch to another.

        Wrong arguments raise UsageError at once; an unreadable image raises ImageError when its turn comes, after the results
        of the images before it.
        """
        wanted = self._predictor.filter(min_score, max_detections, classes)
        images, count = images_of(sources)
        if batch is not None and batch < 1:
            raise UsageError(f"batch {batch}: expected at least 1.", f"Leave it out for {MAX_BATCH}.")
        budgets, hurried = self._planned(budgets_of(budget))
        size = 1 if hurried else batch or (1 if count is None else MAX_BATCH)
        return self._results(with_budgets(images, count, budgets), wanted, size)

    def _planned(self, budgets: Budget | list[Budget]) -> tuple[Budget | list[Budget], bool]:
        """The budgets, deadlines among them as tiles, and whether there are any. Raises UsageError."""
        listed = [budgets] if isinstance(budgets, Budget) else budgets
        found = [planned(each, self.opened, self._threads, 1, self._device, self._path) for each in listed]
        return found[0] if isinstance(budgets, Budget) else found, any(each.has_deadline for each in listed)

    def predict_one(
        self,
        source: Image,
        budget: AnyBudget = 1.0,
        min_score: float = 0.001,
        max_detections: int | None = None,
        classes: Sequence[str] | None = None,
    ) -> Result:
        """The result of one file or array; arguments as of ``predict``. Raises UsageError, ImageError, BackendError."""
        return next(self.predict([source], budget, min_score, max_detections, classes))

    def predict_scene(
        self,
        source: Image,
        budget: AnyBudget = 1.0,
        min_score: float = 0.001,
        max_detections: int | None = None,
        classes: Sequence[str] | None = None,
        window: str | int = "auto",
        overlap: int | None = None,
    ) -> SceneResult:
        """The result of a large image, cut into windows that share ``budget``, as ``apex-rt infer`` does.

        ``source``: a file, or an array uint8 [h,w,3] in RGB order, of which windows are read one by one: ``numpy.memmap`` will
        do. ``window`` and ``overlap`` as on the command line: ``auto`` cuts what is more than 1.5 times the engine's input, by
        windows of its size, ``none`` does not cut, ``1024`` or ``768x1024`` says the size. ``max_detections`` is of the scene.
        Raises UsageError (a deadline says nothing of several windows), ImageError, BackendError.
        """
        wanted, asked = self._predictor.filter(min_score, max_detections, classes), parse_budget(budget)
        scene = scene_of(source)
        windows = windowing_of(window, overlap, self.info.input).cut(*scene.size, self.info.input) or [whole(*scene.size)]
        if len(windows) == 1:
            asked = planned(asked, self.opened, self._threads, 1, self._device, self._path)
        look = look_at_scene(self._predictor, windows, scene.size, scene.read, asked, wanted)
        return scene_result(look, scene.size, self.info, asked.asked, scene.source)

    def _results(self, requests: Iterable[tuple[Image, Budget]], wanted: Filter, batch: int) -> Iterator[Result]:
        for ready in self._batches(requests, batch):
            results: dict[int, Result] = {}
            for place, outputs in self._predictor.run_grouped([item.prepared for item in ready]):
                found = self._predictor.finish(outputs, ready[place].prepared, wanted)
                results[place] = _result(found, ready[place], self.info)
            for place in range(len(ready)):
                yield results.pop(place)  # a caller that lets go of a result frees it

    def _batches(self, requests: Iterable[tuple[Image, Budget]], size: int) -> Iterator[list[_Ready]]:
        """``size`` images at a time. What was read before an error is handed on before it is raised."""
        ready: list[_Ready] = []
        try:
            for source, budget in requests:
                ready.append(self._read(source, budget))
                if len(ready) == size:
                    yield ready
                    ready = []
        except Exception:
            if ready:
                yield ready
            raise
        if ready:
            yield ready

    def _read(self, source: Image, budget: Budget) -> _Ready:
        if isinstance(source, np.ndarray):
            return _Ready(None, budget, self._predictor.prepare(source, budget))
        if not isinstance(source, str | Path):
            raise UsageError(f"image: a {type(source).__name__} is neither a path nor an array.", ARRAYS)
        return _Ready(Path(source), budget, self._predictor.prepare(decode_image(Path(source)), budget))


def _result(found: Detections, item: _Ready, info: ModelInfo) -> Result:
    tiles = item.prepared.tiles
    use = BudgetUse(item.budget.asked, in_all(tiles), len(found.tile_ids), per_level(tiles))
    return Result(**vars(found), info=info, budget=use, source=item.source)


def load(path: str | Path | None = None, threads: int | None = None, device: str = "cpu", policy: str = "strict") -> Engine:
    """Open a bundle, an ``.onnx`` file or a checkpoint; the default engine without a path. Raises ModelError, BackendError."""
    where = default_engine() if path is None else path
    return Engine(open_engine(where, threads, device, policy), threads, device, where)
