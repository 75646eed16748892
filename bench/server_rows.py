"""From the answers of a load to figures: a row of a phase, with one of every second of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from server_anchor import Sample, in_second
from server_client import Answered, good, statuses

REFUSALS = {"RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
Row = dict[str, Any]


def row(found: Sequence[Answered], anchor: Sequence[Sample] = ()) -> Row:
    """Good requests by status, in milliseconds and in tiles, wrong ones by status, ``anchor``, and what every second saw."""
    asked_well = good(found)
    times = np.array([one.seconds for one in asked_well if one.status == "OK"]) * 1000
    beside = np.array([taken for _at, taken in anchor])
    refused = np.array([one.seconds for one in asked_well if one.status in REFUSALS]) * 1000
    return {
        "requests": len(found),
        "good": statuses(asked_well),
        "wrong": statuses([one for one in found if one.asked.bad]),
        **{f"p{q}_ms": _percentile(times, q) for q in (50, 95, 99, 100)},
        "refused_p99_ms": _percentile(refused, 99),
        "tiles": tiles_by_budget(asked_well),
        **{f"anchor_p{q}_ms": _percentile(beside, q) for q in (50, 99)},
        "seconds": per_second(asked_well, anchor),
    }


def tiles_by_budget(found: Sequence[Answered]) -> dict[str, float]:
    """The mean number of tiles that answers spent, by the budget that was asked for."""
    spent: dict[str, list[int]] = {}
    for one in found:
        if one.status == "OK":
            spent.setdefault(one.asked.budget, []).append(one.spent)
    return {budget: float(np.mean(spent[budget])) for budget in sorted(spent)}


def _percentile(values: np.ndarray, q: float) -> float:
    return float(np.percentile(values, q)) if len(values) else float("nan")


def per_second(found: Sequence[Answered], anchor: Sequence[Sample] = ()) -> list[Row]:
    """Of each second of the plan: how many good requests failed, the median of the others and the anchor in milliseconds."""
    rows = []
    for second in range(int(max((one.at for one in found), default=0)) + 1):
        part = [one for one in found if int(one.at) == second]
        times = np.array([one.seconds for one in part if one.status == "OK"]) * 1000
        failed = sum(one.status != "OK" for one in part)
        rows.append({"failed": failed, "p50_ms": _percentile(times, 50), "anchor_ms": in_second(anchor, second)})
    return rows


def recovered(found: Sequence[Answered], usual_s: float) -> float:
    """Seconds until nothing fails and the median is at most ``usual_s``, for good."""
    seconds = per_second(good(found))
    bad = [place for place, one in enumerate(seconds) if one["failed"] or not one["p50_ms"] <= usual_s * 1000]
    return float(bad[-1] + 1) if bad else 0.0
