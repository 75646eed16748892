"""Two engines of one run against each other: the quotient of their times, round by round, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from apex_runtime.backends.session import in_all
from apex_runtime.benchmark.measure import TIMED, Measured

RESAMPLES = 2000
_DRAWN_AT_ONCE = 4_000_000
LEAST_ROUNDS = 5  # fewer have no interval worth the name
SETTLED, SETTLED_ROUNDS = 0.02, 20  # what is known that well needs no more rounds; of fewer rounds no one knows how well


def settled(measured: Sequence[Measured]) -> bool:
    """Whether every quotient of the graphs is known to ``SETTLED``: half of its interval, as a share of it."""
    found = pairs(measured)
    if not found or min(item.turns for pair in found for item in pair) < SETTLED_ROUNDS:
        return False
    spreads = [quotient(second.own_milliseconds("graph"), first.own_milliseconds("graph"))["spread"] for first, second in found]
    return all(spread is not None and spread <= SETTLED for spread in spreads)


def pairs(measured: Sequence[Measured]) -> list[tuple[Measured, Measured]]:
    """The cells that both engines had, each with as many turns as the other."""
    first, second = (
        {(item.cell.budget.asked, item.cell.batch): item for item in measured if item.engine == engine} for engine in (0, 1)
    )
    return [(item, second[key]) for key, item in first.items() if key in second]


def ratio_row(first: Measured, second: Measured) -> dict[str, Any]:
    """Own time of the second engine over that of the first, for each of ``TIMED``."""
    return {
        "budget": first.cell.budget.asked,
        "tiles": [in_all(item.cell.tiles) for item in (first, second)],
        "batch": first.cell.batch,
        **{name: quotient(second.own_milliseconds(name), first.own_milliseconds(name)) for name in TIMED},
    }


def quotient(above: Sequence[float], below: Sequence[float]) -> dict[str, float | None]:
    """The median over rounds of above / below, paired within a round; rounds that only one of them had are left out.

    ``low`` and ``high``: its 95 % interval over resampled rounds (Efron 1979), None of fewer than ``LEAST_ROUNDS``; ``spread``:
    half of it, as a share of the median. ``quartiles`` are of the rounds themselves.
    """
    rounds = min(len(above), len(below))
    each = np.array(above[:rounds]) / np.array(below[:rounds])
    found: dict[str, Any] = {"ratio": round(float(np.median(each)), 4), "low": None, "high": None, "spread": None}
    found["quartiles"] = [round(float(value), 4) for value in np.quantile(each, [0.25, 0.75])]
    if rounds >= LEAST_ROUNDS:
        low, high = np.quantile(_resampled_medians(each), [0.025, 0.975])
        spread = (high - low) / 2 / np.median(each)
        found |= {"low": round(float(low), 4), "high": round(float(high), 4), "spread": round(float(spread), 4)}
    return found


def _resampled_medians(each_R: np.ndarray) -> np.ndarray:
    """float64 [RESAMPLES]; some at a time, so that many rounds fit in memory."""
    random, step = np.random.default_rng(0), max(1, _DRAWN_AT_ONCE // len(each_R))
    sizes = [min(step, RESAMPLES - start) for start in range(0, RESAMPLES, step)]
    return np.concatenate([np.median(random.choice(each_R, (size, len(each_R))), axis=1) for size in sizes])
