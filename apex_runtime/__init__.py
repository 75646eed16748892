"""Apex-X runtime: detection and instance segmentation under a compute budget. No torch in here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from apex_runtime.engine import Engine

__all__ = ["load"]


def load(path: str | Path | None = None, threads: int | None = None, device: str = "cpu", policy: str = "strict") -> Engine:
    """Open an engine: a bundle, an ``.onnx`` file or a checkpoint; the default engine when no path is given.

    >>> engine = load("bundle/")                                 # doctest: +SKIP
    >>> for result in engine.predict(paths, budget=0.25): ...    # doctest: +SKIP
    """
    from apex_runtime.engine import load as open_engine  # NumPy and friends are imported only when something is opened

    return open_engine(path, threads, device, policy)
