"""What every baseline is asked, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Task:
    """Train on the split train of ``data`` for ``limit`` seconds of a processor; images have ``size`` x ``size`` pixels.

    ``weights`` to begin with; None: random ones, of ``seed``. ``side``: of the windows, where the detector is also sliced.
    """

    data: Path
    output: Path
    limit: float
    size: int
    seed: int
    threads: int
    weights: str | None = None
    side: int | None = None


@dataclass(frozen=True)
class Trained:
    """A detector that ``answers.opened`` opens, the seconds of a processor that training took, and what else is to be said."""

    detector: Path
    model: Path
    cpu_seconds: float
    facts: dict[str, Any] = field(default_factory=dict)
