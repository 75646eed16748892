"""Apex-X runtime: detection and instance segmentation under a compute budget. No torch in here."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from apex_runtime.data.roi_mask import RoiMask
    from apex_runtime.engine import Engine
    from apex_runtime.errors import ApexError
    from apex_runtime.postprocess.tiles import Tile
    from apex_runtime.result import BudgetUse, Result
    from apex_runtime.scene_result import SceneResult, SceneWindow

__all__ = ["ApexError", "BudgetUse", "Engine", "Result", "RoiMask", "SceneResult", "SceneWindow", "Tile", "load"]

# Before anything imports ONNX Runtime: since 1.32 it keeps a device id and a database of events in the home folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# NumPy and friends are imported only when one of these is asked for: --help must not wait for them.
_HOMES = {
    "ApexError": "errors",
    "BudgetUse": "result",
    "Engine": "engine",
    "Result": "result",
    "RoiMask": "data.roi_mask",
    "SceneResult": "scene_result",
    "SceneWindow": "scene_result",
    "Tile": "postprocess.tiles",
}


def load(path: str | Path | None = None, threads: int | None = None, device: str = "cpu", policy: str = "strict") -> Engine:
    """Open an engine: a bundle, an ``.onnx`` file or a checkpoint; the default engine when no path is given.

    >>> engine = load("bundle/")                                 # doctest: +SKIP
    >>> for result in engine.predict(paths, budget=0.25): ...    # doctest: +SKIP
    """
    from apex_runtime.engine import load as open_engine

    return open_engine(path, threads, device, policy)


if not TYPE_CHECKING:  # to a type checker it would be a promise that every name exists

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

    def __dir__():
        return sorted({*globals(), *__all__})
