"""Rounds of an engine beside its anchor, and when there are enough of them.

In a round every budget has one call, and before it the anchor has one: what the machine does meanwhile is in both, and
their quotient is taken call by call. A turn is one call: with one thread nothing of the call before is left but what it
put into the caches, and that is always the other one's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from apex_runtime.benchmark.turns import Subject
from apex_runtime.own_time import Turn, time_turn

MIN_ROUNDS, WARM_UP_ROUNDS = 12, 2
Stopwatch = Callable[[Subject], Turn]


@dataclass(eq=False)
class Samples:
    """Turns by budget in the order of the rounds: of the engine, and of the anchor before each (none without an
    anchor)."""

    engine: dict[str, list[Turn]] = field(default_factory=dict)
    anchor: dict[str, list[Turn]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def rounds(self) -> int:
        """How many there were."""
        return min(map(len, self.engine.values()), default=0)

    def quotients(self, budget: str) -> list[float]:
        """Own time of the engine over that of the anchor, round by round."""
        pairs = zip(self.engine[budget], self.anchor[budget], strict=True)
        return [mine.own / other.own for mine, other in pairs]


@dataclass(frozen=True)
class Patience:
    """How long to measure at most: so many seconds after the rounds that there must be, or just so many rounds."""

    seconds: float
    rounds: int | None = None


def run_rounds(
    calls: Mapping[str, Subject],
    anchor: Subject | None,
    patience: Patience,
    enough: Callable[[Samples], bool],
    stop: threading.Event,
    stopwatch: Stopwatch = time_turn,
    clock: Callable[[], float] = time.monotonic,
) -> Samples:
    """Rounds over ``calls`` (by budget) until ``enough`` says so, the patience ends, or ``stop`` is set.

    A round is whole or left out. Raises what a call raises.
    """
    for _round in range(WARM_UP_ROUNDS):
        _one_round(calls, anchor, stopwatch)
    samples = Samples({budget: [] for budget in calls}, {budget: [] for budget in calls} if anchor else {})
    started = clock()
    while not stop.is_set():
        for budget, (before, turn) in _one_round(calls, anchor, stopwatch).items():
            samples.engine[budget].append(turn)
            if before is not None:
                samples.anchor[budget].append(before)
        samples.seconds = clock() - started
        if patience.rounds is not None:
            if samples.rounds >= patience.rounds:
                break
        elif samples.rounds >= MIN_ROUNDS and (samples.seconds >= patience.seconds or enough(samples)):
            break
    return samples


def _one_round(calls: Mapping[str, Subject], anchor: Subject | None, stopwatch: Stopwatch) -> dict[str, tuple[Turn | None, Turn]]:
    return {budget: (stopwatch(anchor) if anchor else None, stopwatch(call)) for budget, call in calls.items()}
