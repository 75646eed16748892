"""Rows of several reports, in one table as far as their contracts are equal, and in words where they are not."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from apex_runtime.errors import UsageError
from apex_runtime.fairness.contract import Contract, differences, known_fields
from apex_runtime.fairness.rows import Row


@dataclass(frozen=True)
class Table:
    """Rows that may stand together."""

    contract: Contract
    rows: tuple[Row, ...]


def check_across(fields: Sequence[str], rows: Sequence[Row]) -> None:
    """Raises UsageError for a field that no contract of these rows has."""
    known = known_fields().union(*(row.contract.without(()) for row in rows))
    for field in fields:
        if field not in known:
            raise UsageError(f"--across {field}: no such field.", f"There are {', '.join(sorted(known_fields()))}.")


def tables(rows: Sequence[Row], across: Collection[str] = ()) -> list[Table]:
    """The rows by contract, in the order in which contracts first appear; ``across``: fields that may differ in a table."""
    found: list[list[Row]] = []
    for row in rows:
        place = next((group for group in found if not differences(group[0].contract, row.contract, across)), None)
        if place is None:
            found.append([row])
        else:
            place.append(row)
    return [Table(group[0].contract, tuple(group)) for group in found]


def as_json(made: Sequence[Table], across: Sequence[str]) -> dict[str, Any]:
    """For a file: every table with its contract's hash, and what its contract has other than that of the first table."""
    return {
        "format_version": 1,
        "comparable": len(made) == 1,
        "across": list(across),
        "tables": [
            {
                "contract_sha256": table.contract.sha256(),
                "differences": {name: list(pair) for name, pair in differences(made[0].contract, table.contract, across).items()},
                "rows": [
                    {"source": row.source, "budget": row.budget, "across": varied(row, across), **row.figures}
                    for row in table.rows
                ],
            }
            for table in made
        ],
    }


def varied(row: Row, across: Sequence[str]) -> dict[str, Any]:
    """The fields of ``across`` as the row has them."""
    flat = row.contract.without(())
    return {field: {name: value for name, value in flat.items() if _below(name, field)} for field in across}


def _below(name: str, field: str) -> bool:
    return name == field or name.startswith(f"{field}.")
