"""From rounds to the document of a measurement: every metric with its value and, where it was sampled, its interval.

``graph_over_anchor@BUDGET``  median over the rounds of own time over the anchor's (on a CPU)
``graph_ms@BUDGET``           median of the own time in milliseconds
``graph_wall_ms@BUDGET``      median of the clock on the wall
``anchor_ms``                 median of the anchor's own time, all budgets together
``peak_memory_bytes``         the most that the process has held; ``device_memory_bytes`` where the session tells
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from apex_runtime.errors import ApexError
from apex_runtime.evaluation.memory import peak_resident_bytes
from apex_runtime.evaluation.sweep import TimedSession
from apex_runtime.machine import machine, state, versions
from apex_runtime.regression.baseline import BASELINE_FORMAT_VERSION, KIND
from apex_runtime.regression.code_facts import code_facts
from apex_runtime.regression.estimate import Estimate, estimate
from apex_runtime.regression.rounds import Patience, Samples, run_rounds
from apex_runtime.regression.workload import Workload

STEADY = 0.01  # half of an interval: a baseline that is known better than this is good enough
OVER_ANCHOR, GRAPH, WALL, ANCHOR = "graph_over_anchor", "graph_ms", "graph_wall_ms", "anchor_ms"
MEMORY, DEVICE_MEMORY = "peak_memory_bytes", "device_memory_bytes"

Enough = Callable[[Samples], bool]


def record(workload: Workload, patience: Patience, enough: Enough, stop: threading.Event) -> dict[str, Any]:
    """Measure and describe. Raises ApexError when ``stop`` was set meanwhile, BackendError."""
    before = state()
    samples = run_rounds(workload.calls, workload.anchor, patience, enough, stop)
    if stop.is_set():
        raise ApexError("Interrupted: half of a measurement is none, and nothing was written.", "Measure again.")
    metrics = times(samples) | _memory(workload)
    return {
        "format_version": BASELINE_FORMAT_VERSION,
        "kind": KIND,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": code_facts(),
        "engine": workload.engine(),
        "contract": workload.contract(),
        "budgets": list(workload.settings.budgets),
        "measured": {"rounds": samples.rounds, "seconds": round(samples.seconds, 1), "settled": enough(samples)},
        "metrics": metrics,
        "circumstances": {"machine": machine(), "before": before, "after": state(), "versions": versions()},
    }


def steady(samples: Samples) -> bool:
    """Whether every time of a baseline is known well enough."""
    return samples.rounds > 0 and all(item.spread <= STEADY for item in judged_times(samples).values())


def judged_times(samples: Samples) -> dict[str, Estimate]:
    """What decides about a time, by metric: quotients with the anchor, else milliseconds."""
    if samples.anchor:
        return {f"{OVER_ANCHOR}@{budget}": estimate(samples.quotients(budget)) for budget in samples.engine}
    return {f"{GRAPH}@{budget}": estimate([turn.own for turn in turns]) for budget, turns in samples.engine.items()}


def times(samples: Samples) -> dict[str, dict[str, Any]]:
    """Every metric of time; empty without a round."""
    if samples.rounds == 0:
        return {}
    found = {name: _metric(item, "ratio") for name, item in judged_times(samples).items()} if samples.anchor else {}
    for budget, turns in samples.engine.items():
        found[f"{GRAPH}@{budget}"] = _metric(estimate([turn.own for turn in turns]), "ms")
        found[f"{WALL}@{budget}"] = _metric(estimate([turn.wall for turn in turns]), "ms")
    if samples.anchor:
        found[ANCHOR] = _metric(estimate([turn.own for turns in samples.anchor.values() for turn in turns]), "ms")
    return found


def _metric(item: Estimate, unit: str) -> dict[str, Any]:
    # Digits, not decimals: of a small engine's 0.003 anchors every percent has to be seen.
    figures = {name: float(f"{getattr(item, name):.6g}") for name in ("value", "low", "high")}
    return {"unit": unit, **figures, "samples": item.samples}


def _memory(workload: Workload) -> dict[str, dict[str, Any]]:
    """What the system tells; a metric that it does not tell is not there."""
    held = {MEMORY: peak_resident_bytes(), DEVICE_MEMORY: TimedSession(workload.opened.session).peak_memory_bytes}
    return {name: {"unit": "bytes", "value": value} for name, value in held.items() if value is not None}
