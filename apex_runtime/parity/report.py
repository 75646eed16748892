"""What a parity run found: ``parity.json`` (schema ``schemas/parity.schema.json``) and the tables on the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apex_runtime.errors import UsageError
from apex_runtime.parity.check import Comparison, ParityResult
from apex_runtime.parity.compare import Stats
from apex_runtime.parity.decision import Decisions
from apex_runtime.parity.run import BudgetResult
from apex_runtime.parity.subjects import Subject
from apex_runtime.parity.task_report import mean, task_record, task_table
from apex_runtime.parity.tolerance import Rules
from apex_runtime.pipeline.results import write_json

if TYPE_CHECKING:
    from rich.table import Table

    from apex_runtime.parity.sweep import Absent

SCHEMA_VERSION = 2
TOOLS = ("apex-x", "numpy", "onnx", "onnxruntime", "torch")


def to_dict(result: ParityResult, absent: Sequence[Absent] = ()) -> dict[str, Any]:
    """The content of ``parity.json``. ``absent``: what a sweep could not compare here."""
    return {
        "schema": "apex-x/parity",
        "schema_version": SCHEMA_VERSION,
        "verdict": _verdict(result.passed),
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "tools": tool_versions(),
        "profile": {
            "name": result.profile.name,
            "version": result.profile.version,
            "mismatch_limit": result.profile.mismatch_limit,
            "min_overlap": result.profile.decision.min_overlap,
            "min_score": result.profile.task.min_score,
            "min_box_iou": result.profile.task.min_box_iou,
        },
        "reference": _subject(result.reference),
        "absent": [asdict(item) for item in absent],
        "comparisons": [_comparison(item, Rules(result.profile, item.candidate.precision)) for item in result.comparisons],
    }


def write_report(document: dict[str, Any], path: Path) -> None:
    """Write ``parity.json`` in one step. Raises UsageError when the place cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, document)
    except OSError as error:
        raise UsageError(f"--output {path}: cannot be written ({error.strerror}).", "Name another file.", path=path) from error


def tables(comparison: Comparison, rules: Rules) -> list[Table]:
    """Two tables a budget: every output and the decisions; the detections."""
    return [
        table for budget in comparison.budgets for table in (_table(comparison, budget, rules), task_table(budget.task, rules))
    ]


def _comparison(item: Comparison, rules: Rules) -> dict[str, Any]:
    return {
        "candidate": _subject(item.candidate),
        "backends": {"reference": item.reference_backend, "candidate": item.backend},
        "verdict": _verdict(not item.reasons),
        "reasons": item.reasons,
        "notes": item.notes,
        "images": [{"name": case.name, "synthetic": case.synthetic, "sha256": case.sha256} for case in item.cases],
        "budgets": [_budget(budget, rules) for budget in item.budgets],
    }


def _budget(budget: BudgetResult, rules: Rules) -> dict[str, Any]:
    return {
        "asked": budget.asked,
        "batch": budget.batch,
        "tiles": budget.tiles,
        "verdict": _verdict(not budget.reasons(rules)),
        "tensor": {name: _stats(name, stats, rules) for name, stats in budget.outputs.items()},
        "decision": _decision(budget.decisions, rules),
        "task": task_record(budget.task, rules),
    }


def _stats(name: str, stats: Stats, rules: Rules) -> dict[str, Any]:
    gate, tolerance = rules.gate(name), rules.tolerance(name)
    reasons = stats.reasons(*gate)
    return {
        "verdict": _verdict(not reasons),
        "count": stats.count,
        "mismatches": stats.mismatches,
        "ratio": stats.ratio,
        "non_finite": stats.non_finite,
        "max_abs": stats.max_abs,
        "mean_abs": stats.mean_abs,
        "exempt": stats.exempt,
        "sqnr_db": _decibels(stats),
        "tolerance": None if tolerance is None else tolerance.model_dump(),
        "mismatch_limit": gate.mismatch_limit,
        "min_sqnr_db": gate.min_sqnr_db,
        "reasons": reasons,
    }


def _decision(decisions: Decisions, rules: Rules) -> dict[str, Any]:
    reasons = decisions.reasons(rules.min_overlap)
    return {
        "verdict": _verdict(not reasons),
        "images": decisions.images,
        "equal_sets": decisions.equal_sets,
        "equal_orders": decisions.equal_orders,
        "unexplained": decisions.unexplained,
        "mean_overlap": mean(decisions.overlaps),
        "min_overlap": min(decisions.overlaps, default=None),
        "mean_overlap_synthetic": mean(decisions.synthetic_overlaps),
        "reasons": reasons,
    }


def _subject(subject: Subject) -> dict[str, str]:
    return {
        "path": str(subject.path),
        "kind": subject.kind,
        "sha256": subject.sha256,
        "hashed": subject.hashed,
        "precision": subject.precision,
    }


def _table(comparison: Comparison, budget: BudgetResult, rules: Rules) -> Table:
    from rich.table import Table
    from rich.text import Text

    spread = f"{min(budget.tiles)} to {max(budget.tiles)}" if len(set(budget.tiles)) > 1 else str(budget.tiles[0])
    batch = f", {budget.batch} at a time" if budget.batch > 1 else ""
    title = f"{comparison.candidate.path}, budget {budget.asked} ({spread} tiles, {len(budget.tiles)} images{batch})"
    table = Table(title=Text(title))  # a path may hold what Rich takes for markup
    for column in ("what", "values", "beyond", "max |d|", "mean |d|", "dB", "verdict"):
        table.add_column(column, justify="left" if column in ("what", "verdict") else "right", no_wrap=column == "what")
    for name, stats in budget.outputs.items():
        word, ratio = _verdict(not stats.reasons(*rules.gate(name))), _decibels(stats)
        numbers = f"{stats.count}", f"{stats.mismatches}", f"{stats.max_abs:.2e}", f"{stats.mean_abs:.2e}"
        table.add_row(name, *numbers, "" if ratio is None else f"{ratio:.1f}", word)
    decisions = budget.decisions
    word = _verdict(not decisions.reasons(rules.min_overlap))
    counts = str(decisions.images), str(decisions.images - decisions.equal_sets)
    table.add_section()
    table.add_row("same tiles chosen", *counts, "overlap", f"{mean(decisions.overlaps)}", "", word)
    return table


def _decibels(stats: Stats) -> float | None:
    """None for no ratio at all: equal values, or a reference of zeros. JSON has no infinity."""
    return round(stats.sqnr_db, 3) if math.isfinite(stats.sqnr_db) else None


def _verdict(passed: bool) -> str:
    return "pass" if passed else "fail"


def tool_versions() -> dict[str, str]:
    """Versions of the packages that had a say."""
    found = {}
    for name in TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
