"""What the comparison of the ops found: ``parity.json`` (schema ``schemas/parity-ops.schema.json``) and the table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

from apex_runtime.parity.ops.check import OpRow, OpTolerances, ops_passed
from apex_runtime.parity.report import tool_versions

if TYPE_CHECKING:
    from rich.table import Table

SCHEMA_VERSION = 1


def ops_to_dict(rows: Sequence[OpRow], allowed: OpTolerances) -> dict[str, Any]:
    """The content of ``parity.json``."""
    return {
        "schema": "apex-x/parity-ops",
        "schema_version": SCHEMA_VERSION,
        "verdict": "pass" if ops_passed(rows) else "fail",
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "tools": tool_versions(),
        "tolerances_version": allowed.version,
        "rows": [_row(row) for row in rows],
    }


def _row(row: OpRow) -> dict[str, Any]:
    stats = row.stats
    return {
        "op": row.op,
        "face": row.face,
        "precision": row.precision,
        "verdict": row.verdict,
        "code": row.code or None,
        "reasons": row.reasons,
        "cases": row.cases,
        "count": stats.count,
        "mismatches": stats.mismatches,
        "non_finite": stats.non_finite,
        "max_abs": stats.max_abs,
        "mean_abs": stats.mean_abs,
        "tolerance": row.tolerance,
    }


def ops_tables(rows: Sequence[OpRow]) -> list[Table]:
    """A table for every op, a line for every face."""
    return [_table(op, list(own)) for op, own in groupby(rows, key=lambda row: row.op)]


def _table(op: str, rows: Sequence[OpRow]) -> Table:
    from rich.table import Table

    table = Table(title=f"{op} against NumPy in float64, |d| as a share of the largest number")
    for column in ("face", "type", "cases", "values", "max |d|", "mean |d|", "verdict"):
        table.add_column(column, justify="left" if column in ("face", "type", "verdict") else "right", no_wrap=True)
    for row in rows:
        numbers = ("", "", "", "")
        if row.cases:
            numbers = f"{row.cases}", f"{row.stats.count}", f"{row.stats.max_abs:.1e}", f"{row.stats.mean_abs:.1e}"
        table.add_row(row.face, row.precision, *numbers, row.code or row.verdict)
    return table
