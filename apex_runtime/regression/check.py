"""Is what was measured now worse than the baseline allows? First: may the two be compared? Then metric by metric.

Schema: ``apex_runtime/schemas/check.schema.json``.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from apex_runtime.regression.baseline import Measurement
from apex_runtime.regression.estimate import Estimate, decided
from apex_runtime.regression.record import DEVICE_MEMORY, GRAPH, MEMORY, OVER_ANCHOR, STEADY, Enough, judged_times
from apex_runtime.regression.rounds import Samples
from apex_runtime.regression.rule import Allowance, allowed, figure, judge
from apex_runtime.regression.workload import Settings

CHECK_FORMAT_VERSION = 1


@dataclass(frozen=True)
class Limits:
    """What is allowed beside a baseline, and whether milliseconds count where there is an anchor."""

    ratios: tuple[Allowance, ...]
    amounts: tuple[Allowance, ...]
    absolute: bool = False


def is_judged(name: str, anchored: bool, absolute: bool) -> bool:
    """Quotients with the anchor and memory decide; milliseconds where there is no anchor, or where it is asked for."""
    kind = name.partition("@")[0]
    return kind in (OVER_ANCHOR, MEMORY, DEVICE_MEMORY) or (kind == GRAPH and (absolute or not anchored))


def settings_of(baseline: Measurement) -> Settings:
    """How to measure, so that the two may be compared."""
    return Settings(baseline.budgets, baseline.contract.threads, baseline.contract.device)


def differences(baseline: Measurement, current: Measurement) -> list[dict[str, str]]:
    """What differs though it must not: machine, backend, contract, input. Another engine is what a check is about."""
    sides = [_comparable(item) for item in (baseline, current)]
    return [
        {"what": name, "baseline": str(sides[0].get(name)), "current": str(sides[1].get(name))}
        for name in dict.fromkeys([*sides[0], *sides[1]])
        if sides[0].get(name) != sides[1].get(name)
    ]


def _comparable(item: Measurement) -> dict[str, Any]:
    machine = item.circumstances.machine
    return {
        "processor": machine.processor,
        "system": machine.system,
        **({"usable_cpus": machine.usable_cpus} if item.contract.device == "cpu" else {"gpus": list(machine.gpus)}),
        "executed": item.engine.executed,
        "input": list(item.engine.input),
        **item.contract.model_dump(),
    }


def undecided(baseline: Measurement, limits: Limits) -> Enough:
    """For ``record``: not enough while a time lies so close to its limit that noise could have put it there."""

    def enough(samples: Samples) -> bool:
        return samples.rounds > 0 and all(_settled(name, item, baseline, limits) for name, item in judged_times(samples).items())

    return enough


def _settled(name: str, item: Estimate, baseline: Measurement, limits: Limits) -> bool:
    judged = judge(baseline.value(name), item.value, allowed(name, limits.ratios), allowed(name, limits.amounts))
    if judged.limit is None:
        return True  # it fails whatever is measured
    spread = _spread(baseline.metrics.get(name))
    return decided(item, spread, judged.limit) or max(item.spread, spread) <= STEADY


def _spread(metric: object) -> float:
    """Half of the interval that a baseline gives, in logarithms; 0 where it gives none."""
    low, high = (figure(metric.get(side)) if isinstance(metric, dict) else None for side in ("low", "high"))
    return math.log(high / low) / 2 if low is not None and high is not None and high > low else 0.0


def check(baseline: Measurement, current: Measurement, limits: Limits) -> dict[str, Any]:
    """The report. ``verdict`` is pass only if the two may be compared and every judged metric passes."""
    different = differences(baseline, current)
    names = list(dict.fromkeys([*baseline.metrics, *current.metrics]))
    rows = [_row(name, baseline, current, limits) for name in names]
    judged = [row for row in rows if row["judged"]]
    reasons = [f"another {item['what']}: {item['current']}, the baseline has {item['baseline']}" for item in different]
    reasons += [] if judged else ["the baseline is empty: there is nothing to judge by"]
    reasons += [f"{row['name']}: {row['reason']}" for row in judged if row["verdict"] == "fail"]
    return {
        "format_version": CHECK_FORMAT_VERSION,
        "verdict": "fail" if reasons else "pass",
        "reasons": reasons,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "baseline": {
            "created_utc": baseline.created_utc,
            "model_sha256": baseline.engine.model_sha256,
            "code": baseline.code.model_dump(),
        },
        "engine": current.engine.model_dump(mode="json"),
        "code": current.code.model_dump(),
        "contract": current.contract.model_dump(),
        "differences": different,
        "limits": {
            "ratio": [asdict(item) for item in limits.ratios],
            "abs": [asdict(item) for item in limits.amounts],
            "absolute": limits.absolute,
        },
        "metrics": rows,
        "measured": current.measured.model_dump(),
        "circumstances": current.circumstances.model_dump(mode="json"),
    }


def _row(name: str, baseline: Measurement, current: Measurement, limits: Limits) -> dict[str, Any]:
    found = judge(baseline.value(name), current.value(name), allowed(name, limits.ratios), allowed(name, limits.amounts))
    counts = is_judged(name, baseline.contract.anchor_sha256 is not None, limits.absolute)
    row: dict[str, Any] = {"name": name, "unit": _unit(name), "judged": counts, **asdict(found)}
    return row if counts else row | {"limit": None, "verdict": "shown", "reason": None}


def _unit(name: str) -> str:
    kind = name.partition("@")[0]
    return "ratio" if kind == OVER_ANCHOR else "bytes" if kind.endswith("bytes") else "ms"
