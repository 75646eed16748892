"""What a gate times of an engine: one call of its graph per budget, on an image that is always the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apex_runtime.backends.capabilities import BACKENDS, probe
from apex_runtime.backends.session import Session
from apex_runtime.benchmark.turns import Subject
from apex_runtime.bundle.load import Opened, open_engine
from apex_runtime.errors import UsageError
from apex_runtime.own_time import clock_name
from apex_runtime.regression.anchor import anchor_sha256, open_anchor
from apex_runtime.routing.budget import parse_budget
from apex_runtime.routing.split import plan_tiles

DEFAULT_BUDGETS = ("1", "0.25", "1.0")
DEFAULT_THREADS = 1
TIMED = "one call of the backend on arrays of the host, batch 1, an image of noise; on a GPU its copies are in it"


@dataclass(frozen=True)
class Settings:
    """How an engine is run for a gate. ``budgets`` as the user wrote them."""

    budgets: tuple[str, ...] = DEFAULT_BUDGETS
    threads: int = DEFAULT_THREADS
    device: str = "cpu"


@dataclass(frozen=True)
class Workload:
    """An opened engine, its calls by budget, the anchor's call (None on a GPU, where no anchor is), and the
    settings."""

    opened: Opened
    calls: dict[str, Subject]
    anchor: Subject | None
    settings: Settings

    def engine(self) -> dict[str, Any]:
        """What the file says about the engine."""
        info, manifest = self.opened.session.info, self.opened.manifest
        return {
            "model_sha256": self.opened.digest,
            "executed": self.opened.executed,
            "precision": manifest.precision if manifest else None,
            "input": [info.input.height, info.input.width],
            "tiles": info.tiles.count,
        }

    def contract(self) -> dict[str, Any]:
        """What must be equal where two measurements are compared, beside the machine and the size of the input."""
        return {
            "timed": TIMED,
            "threads": self.settings.threads,
            "device": self.settings.device,
            "clock": clock_name(),
            "anchor_sha256": anchor_sha256() if self.anchor else None,
            "backend_version": probe(self.opened.executed).version,
        }


def open_workload(path: str | Path, settings: Settings) -> Workload:
    """Open an exported engine. Raises UsageError (a checkpoint, a budget that means nothing here), ModelError,
    BackendError."""
    opened = open_engine(path, settings.threads, settings.device)
    if opened.executed not in BACKENDS:
        remedy = "Export it: apex-train export best.pt -o model.onnx"
        raise UsageError(f"{path}: a checkpoint; a gate is for exported models and bundles.", remedy, path=path)
    anchor = open_anchor(settings.threads) if opened.executed == "ort-cpu" else None
    return Workload(opened, calls_of(opened.session, settings.budgets), anchor, settings)


def calls_of(session: Session, budgets: Sequence[str]) -> dict[str, Subject]:
    """One call per budget. Raises UsageError."""
    info = session.info
    shape = (1, info.input.height, info.input.width, 3)
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    bonus = np.zeros((1, info.tiles.count), np.float32)
    content = np.ones(info.tiles.count, bool)

    def call(budget: str) -> Subject:
        asked = parse_budget(budget)
        if asked.kind == "ms":
            raise UsageError(f"--budget {budget}: a deadline is not work that stays the same.", "Give tiles or a share.")
        tiles = plan_tiles(asked, content, info)
        return lambda: session.run(image, tiles, bonus)

    return {budget: call(budget) for budget in budgets}
