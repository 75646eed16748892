"""The Python face of the runtime: ``engine = apex_runtime.load("bundle/")``, then ``engine.predict(...)``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from apex_runtime.bundle.load import Opened, open_engine
from apex_runtime.data.image import decode_image
from apex_runtime.detections import Detections
from apex_runtime.errors import ModelError
from apex_runtime.model_info import ModelInfo
from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.routing.budget import Budget, parse_budget

DEFAULT_ENGINE = "nuclei-nano"

Source = str | Path | np.ndarray


def default_engine() -> Path:
    """The folder of the engine that comes with this package. Raises ModelError when it is not installed."""
    folder = Path(str(files("apex_engines"))) / DEFAULT_ENGINE
    if not (folder / "manifest.json").is_file():
        raise ModelError(
            f"{folder}: the default engine is not part of this installation.", "Name an engine: --engine BUNDLE or model.onnx."
        )
    return folder


class Engine:
    """An opened engine. Not for use from several threads at once."""

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self._predictor = Predictor(opened.session)

    @property
    def info(self) -> ModelInfo:
        """Classes, input size, tile grid and the rest of the model's passport."""
        return self._predictor.info

    def predict(
        self,
        sources: Source | Iterable[Source],
        budget: Budget | int | float | str = 1.0,
        min_score: float = 0.001,
        max_detections: int | None = None,
        classes: Sequence[str] | None = None,
    ) -> Iterator[Detections]:
        """Detections of each image, one after the other: paths, or arrays uint8 [h,w,3] RGB; one of them or any iterable.

        ``budget``: 16 = tiles, 0.25 = share of the image's tiles, 1.0 = all, or text as on the command line.
        Wrong arguments raise UsageError at once; an unreadable image raises ImageError when its turn comes.
        """
        parsed = parse_budget(budget)
        self._predictor.filter(min_score, max_detections, classes)
        listed: Iterable[Source] = [sources] if isinstance(sources, str | Path | np.ndarray) else sources
        return (self._one(source, parsed, min_score, max_detections, classes) for source in listed)

    def _one(
        self, source: Source, budget: Budget, min_score: float, max_detections: int | None, classes: Sequence[str] | None
    ) -> Detections:
        image = source if isinstance(source, np.ndarray) else decode_image(Path(source))
        return self._predictor.predict([image], budget, min_score, max_detections, classes)[0]


def load(path: str | Path | None = None, threads: int | None = None, device: str = "cpu", policy: str = "strict") -> Engine:
    """Open a bundle, an ``.onnx`` file or a checkpoint; the default engine without a path. Raises ModelError, BackendError."""
    return Engine(open_engine(default_engine() if path is None else path, threads, device, policy))
