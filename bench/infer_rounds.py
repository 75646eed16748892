"""Rounds of ``apex-rt infer --save none`` within this process: its own pipeline, without the start of a process around it."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from apex_runtime.backends.session import Session, Tiles
from apex_runtime.bundle.load import Opened
from apex_runtime.data.sources import SourceItem
from apex_runtime.model_info import ModelInfo
from apex_runtime.pipeline.batching import parse_batch
from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.pipeline.results import OutputFolder
from apex_runtime.pipeline.runner import Run
from apex_runtime.pipeline.stages import RunOptions
from apex_runtime.routing.budget import parse_budget
from apex_runtime.windows.plan import parse_windowing


@dataclass
class Recorder:
    """A session that keeps what it was called with, and the seconds that its calls took in all; for several threads at once."""

    session: Session
    calls: list[tuple[np.ndarray, Tiles, np.ndarray]] = field(default_factory=list)
    seconds: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def info(self) -> ModelInfo:
        """The model's passport."""
        return self.session.info

    @property
    def name(self) -> str:
        """What executes."""
        return self.session.name

    def run(self, images: np.ndarray, tiles: Tiles, tile_bonus: np.ndarray) -> dict[str, np.ndarray]:
        """As ``Session.run``."""
        started = time.perf_counter()
        outputs = self.session.run(images, tiles, tile_bonus)
        seconds = time.perf_counter() - started
        with self.lock:
            self.calls.append((images, tiles, tile_bonus))
            self.seconds += seconds
        return outputs

    def again(self, session: Session, lanes: int) -> None:
        """The same calls once more, nothing else, so many of them at a time."""
        if lanes == 1:
            for call in self.calls:
                session.run(*call)
            return
        with ThreadPoolExecutor(lanes) as pool:
            for _outputs in pool.map(lambda call: session.run(*call), self.calls):
                pass


def infer(opened: Opened, session: Session, items: Sequence[SourceItem], budget: str, min_score: float) -> dict[str, Any]:
    """One run with the defaults of the command; its summary, ``seconds`` being from the first file to the last line written."""
    predictor = Predictor(session)
    options = RunOptions(
        parse_budget(budget),
        predictor.filter(min_score, None, ()),
        batch=parse_batch("auto", opened.executed),
        save=frozenset(),
        windowing=parse_windowing("auto", None, predictor.info.input),
        lanes=opened.lanes,
    )
    with tempfile.TemporaryDirectory() as folder:
        summary = Run(predictor, items, OutputFolder(Path(folder), predictor.info.classes), options).execute({}, {})
    if summary["images"]["failed"]:
        raise RuntimeError(f"{summary['images']['failed']} images cannot be used: measure on others")
    return summary


def parts(items: Sequence[SourceItem], rounds: int) -> Iterator[list[SourceItem]]:
    """The images in so many parts, each with every so many-th one, so that all parts are alike."""
    for number in range(rounds):
        yield list(items[number::rounds])
