"""What the lines cost: every graph of the frontier in turn within every round, so that quotients are paired.

The clock stands around ONNX Runtime alone, batch 1; the windows of a sliced pass are one batch. A budget is timed at the mean
number of tiles that it gave the images, rounded, for that is what its accuracy was bought with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from frontier_run import ALL, DENSE, PERIPHERAL, SLICED, Engines

from apex_runtime.backends.session import Session
from apex_runtime.benchmark.turns import Subject, measure
from apex_runtime.evaluation.bootstrap import Interval
from apex_runtime.frontier.choices import Line
from apex_runtime.frontier.figures import interval


@dataclass(frozen=True)
class Speed:
    """Raw milliseconds per subject and round, and which subject stands for a line."""

    samples: dict[str, list[float]]
    subject_of: dict[Line, str]

    def of_lines(self) -> dict[Line, dict[str, Any]]:
        """Per line its subject, the median in milliseconds, and the quotient over all tiles."""
        return {
            line: {"subject": name, "ms": float(np.median(self.samples[name])), "over_all_tiles": vars(self.over_all_tiles(line))}
            for line, name in self.subject_of.items()
        }

    def over_all_tiles(self, line: Line, resamples: int = 1000) -> Interval:
        """The median over rounds of the line's time over that of all tiles, with its 95 % interval over resampled rounds."""
        quotients = np.divide(*(self.samples[self.subject_of[each]] for each in (line, ALL)))
        drawn = np.random.default_rng(0).choice(quotients, (resamples, len(quotients)))
        return interval(np.concatenate([[np.median(quotients)], np.median(drawn, axis=1)]))


def time_lines(engines: Engines, tiles: dict[Line, float], windows: float, rounds: int, warmup: int) -> Speed:
    """Time the router's budgets, all tiles and the twins. ``tiles`` and ``windows``: means per image."""
    counts = {line: max(1, round(mean)) for line, mean in tiles.items() if line == ALL or line.kind == "router"}
    subjects = {f"K={count}": subject(engines.routed, count) for count in sorted(set(counts.values()))}
    subjects["peripheral"] = subject(engines.peripheral, 1)
    subjects["dense"] = subject(engines.dense, 1)
    pieces = max(1, round(windows))
    subjects[f"sliced, {pieces} windows"] = subject(engines.window, 1, pieces)
    names: Sequence[str] = list(subjects)
    subject_of = {line: f"K={count}" for line, count in counts.items()}
    subject_of |= dict(zip((PERIPHERAL, DENSE, SLICED), names[-3:], strict=True))
    return Speed(measure(subjects, rounds, warmup), subject_of)


def subject(session: Session, tiles: int, batch: int = 1) -> Subject:
    """A call of the graph on noise."""
    info = session.info
    shape = (batch, info.input.height, info.input.width, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    bonus = np.zeros((batch, info.tiles.count), np.float32)
    return lambda: session.run(images, tiles, bonus)
