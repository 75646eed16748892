"""The task level in ``parity.json`` and on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from apex_runtime.parity.average_precision import ApPair, AveragePrecision
from apex_runtime.parity.task_stats import TaskStats
from apex_runtime.parity.tolerance import Rules, TaskLimits

if TYPE_CHECKING:
    from rich.table import Table


def task_record(task: TaskStats, rules: Rules) -> dict[str, Any]:
    """The entry ``task`` of a budget."""
    limits = rules.task_limits
    return {
        "verdict": task.verdict(limits),
        "images": task.images,
        "set_aside": task.set_aside,
        "matched": task.matched,
        "reference_only": task.reference_only,
        "candidate_only": task.candidate_only,
        "exempt": task.exempt,
        "match_rate": task.match_rate,
        "mean_box_iou": mean(task.box_ious),
        "worst_box_iou": min(task.box_ious, default=None),
        "mean_mask_iou": mean(task.mask_ious),
        "worst_mask_iou": min(task.mask_ious, default=None),
        "mean_score_difference": mean(task.score_differences),
        "max_score_difference": max(task.score_differences, default=None),
        "average_precision": task.precision and _average_precision(task.precision),
        "limits": limits.model_dump(),
        "reasons": task.reasons(limits),
    }


def _average_precision(found: AveragePrecision) -> dict[str, Any]:
    return {"images": found.images, "objects": found.objects, "box": _ap_pair(found.box), "mask": _ap_pair(found.mask)}


def _ap_pair(pair: ApPair | None) -> dict[str, float] | None:
    if pair is None:
        return None
    return {"reference": pair.reference, "candidate": pair.candidate, "drop_points": pair.drop_points}


def task_table(task: TaskStats, rules: Rules) -> Table:
    """What was found beside what is asked for."""
    from rich.table import Table

    table = Table(title=f"detections of {rules.task.min_score:g} or more, {task.images - task.set_aside} images")
    for column in ("what", "found", "limit", "verdict"):
        table.add_column(column, justify="left" if column in ("what", "verdict") else "right")
    rows = list(_rows(task, rules.task_limits))
    for at, row in enumerate(rows, 1):
        table.add_row(*row, task.verdict(rules.task_limits) if at == len(rows) else "")
    return table


def _rows(task: TaskStats, limits: TaskLimits) -> Iterator[tuple[str, str, str]]:
    alone = f"{task.matched} pairs, {task.reference_only} + {task.candidate_only} alone"
    rate = "" if task.match_rate is None else f"{task.match_rate:.4f}: "
    yield "match rate", f"{rate}{alone}", f">= {limits.min_match_rate:g}"
    if task.matched:
        yield "mean box IoU", f"{np.mean(task.box_ious):.4f}", f">= {limits.min_mean_box_iou:g}"
        yield "mean mask IoU", f"{np.mean(task.mask_ious):.4f}", f">= {limits.min_mean_mask_iou:g}"
        difference = f"{np.mean(task.score_differences):.2e}"
        yield "mean |score difference|", difference, f"<= {limits.max_mean_score_difference:g}"
    for kind, pair in task.precision.pairs if task.precision else ():
        found = f"{pair.reference * 100:.2f} to {pair.candidate * 100:.2f}: {pair.drop_points:+.2f}"
        yield f"drop of {kind} AP", found, f"<= {limits.max_ap_drop:g}"


def mean(values: list[float]) -> float | None:
    """For the report; None without any."""
    return round(float(np.mean(values)), 6) if values else None
