"""The one rule of every gate: ``current > baseline * (1 + ratio) + abs`` fails, and so does everything that is not a
figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from apex_runtime.errors import UsageError

DEFAULT_RATIO = (
    0.07  # half of the 15 % that must be seen, and far more than what the quotient of two good measurements differs by
)


@dataclass(frozen=True)
class Judged:
    """What became of one metric: its two figures (None where they are none), the most it may be, and why it failed."""

    baseline: float | None
    current: float | None
    limit: float | None
    verdict: Literal["pass", "fail"]
    reason: str | None


@dataclass(frozen=True)
class Allowance:
    """A share or an amount for the metrics whose name fits ``pattern`` (``*`` stands for anything)."""

    pattern: str
    value: float


def judge(baseline: object, current: object, ratio: float, absolute: float) -> Judged:
    """The rule. ``baseline`` and ``current`` as they were read from somewhere; None is a metric that is missing."""
    sides = {"baseline": figure(baseline), "current": figure(current)}
    problems = [f"{side}: {_problem(value)}" for side, value in (("baseline", baseline), ("current", current)) if not sides[side]]
    before, now = sides["baseline"], sides["current"]
    limit = None if before is None else before * (1 + ratio) + absolute
    if limit is not None and not math.isfinite(limit):
        limit, problems = None, [*problems, "the limit is not a number"]
    if before is not None and now is not None and limit is not None and not problems and now > limit:
        problems.append(
            f"{100 * (now / before - 1):.1f} % more than the baseline, allowed are {100 * (limit / before - 1):.1f} %"
        )
    return Judged(before, now, limit, "fail" if problems else "pass", "; ".join(problems) or None)


def figure(value: object) -> float | None:
    """A number that can be the measurement of something: finite and above zero; no truth value and no text."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and number > 0 else None


def _problem(value: object) -> str:
    return "missing" if value is None else f"{str(value)[:40]!r} is not a positive number"


def parse_allowances(texts: Sequence[str], option: str, default: float) -> tuple[Allowance, ...]:
    """``0.07`` for all metrics, ``graph_ms@*=0.1`` for some; of several that fit, the last counts. Raises
    UsageError."""
    found = [Allowance("*", default)]
    for text in texts:
        pattern, equals, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0) or (equals and not pattern.strip()):
            remedy = "Give a number from 0, or METRIC=NUMBER, for example peak_memory_bytes=0.1"
            raise UsageError(f"{option} {text}: not something that can be allowed.", remedy)
        found.append(Allowance(pattern.strip() or "*", value))
    return tuple(found)


def allowed(name: str, allowances: Sequence[Allowance]) -> float:
    """What counts for the metric ``name``: the last that fits."""
    return next(item.value for item in reversed(allowances) if fnmatchcase(name, item.pattern))


def check_patterns(allowances: Sequence[Allowance], names: Sequence[str], option: str) -> None:
    """Raises UsageError for a pattern that fits no metric: a gate that was meant would not be one."""
    for item in allowances:
        if not any(fnmatchcase(name, item.pattern) for name in names) and item.pattern != "*":
            raise UsageError(f"{option} {item.pattern}=...: there is no such metric.", f"There are: {', '.join(names)}")
