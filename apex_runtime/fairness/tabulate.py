"""Rows of several reports, in one table as far as their contracts are equal, and in words where they are not."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from apex_runtime.errors import DataError, UsageError
from apex_runtime.fairness.contract import Contract, differences, known_fields
from apex_runtime.fairness.evidence import REPORT_NAME, read_evidence, read_json

_AP = {f"mAP_{kind}": f"{kind} AP" for kind in ("bbox", "segm")} | {f"AP50_{kind}": f"{kind} AP50" for kind in ("bbox", "segm")}


@dataclass(frozen=True)
class Row:
    """A row of a report: where it is from, its budget (empty for none), its contract, and its figures by the name of a column."""

    source: str
    budget: str
    contract: Contract
    figures: dict[str, float | None]


@dataclass(frozen=True)
class Table:
    """Rows that may stand together."""

    contract: Contract
    rows: tuple[Row, ...]


def read_rows(path: Path) -> list[Row]:
    """The rows of a report of ``bench``, ``eval`` or ``bench frontier``, or of an evidence bundle.

    Raises UsageError, DataError.
    """
    if path.is_dir():
        read_evidence(path)
    elif not path.is_file():
        raise UsageError(f"{path}: no such report.", "Name a file written with --output, or an evidence bundle.", path=path)
    report = read_json(path / REPORT_NAME if path.is_dir() else path)
    try:
        if "contenders" in report:
            rows = [row for each in report["contenders"] for row in _of_contender(each)]
        else:
            rows = _rows(path.name, report, Contract.model_validate(report["fairness"]))
    except KeyError as error:
        message = f"{path}: no report with a fairness contract (it lacks {error})."
        raise DataError(message, "Measure again with apex-rt bench or apex-rt eval.", path=path) from error
    except (ValidationError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({_first(error)}).", "Measure again.", path=path) from error
    if not rows:
        raise DataError(f"{path}: a report without rows.", "Measure again.", path=path)
    return rows


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        found = error.errors()[0]
        return f"{'.'.join(map(str, found['loc']))}: {found['msg']}"
    return str(error).splitlines()[0][:150]


def _rows(source: str, report: dict[str, Any], contract: Contract) -> list[Row]:
    if "budgets" in report:
        return [
            Row(source, row["budget"], contract, _accuracy(row["figures"]) | _times_of_eval(row)) for row in report["budgets"]
        ]
    if "scores" in report:
        return [Row(source, "", contract, _accuracy(report["scores"]["figures"]))]
    return [_of_bench(source, row, contract) for row in report["rows"]]


def _of_bench(source: str, row: dict[str, Any], contract: Contract) -> Row:
    own = Contract.model_validate(contract.model_dump() | {"batch": row["batch"]})
    if own.sha256() != row["contract_sha256"]:
        raise ValueError("a row's contract is not the one it names")
    figures = {f"{name.replace('_', ' ')} ms": _number(row[name]["median"]) for name in ("graph", "end_to_end")}
    return Row(source, row["budget"], own, figures | {"images/s": _number(row["end_to_end"]["images_per_second"])})


def _of_contender(contender: dict[str, Any]) -> list[Row]:
    """Of a frontier, whose titles say more than the name of its file; random tiles as the mean over their seeds."""
    contract = Contract.model_validate(contender["fairness"])
    if contract.sha256() != contender["contract_sha256"]:
        raise ValueError("a contract is not the one that is named")
    rows = []
    for row in (row for row in contender["rows"] if row["seed"] is None):
        figures = {f"{kind} {name}": row.get(f"{name}_{kind}") for kind in ("bbox", "segm") for name in ("AP", "AP50")}
        percent = {name: _percent(_number(found["value"])) for name, found in figures.items() if found is not None}
        times = {f"{name} ms": _number(row[f"{name}_ms"]) for name in ("graph", "image")}
        rows.append(Row(contender["title"], " ".join(filter(None, (row["line"], row["budget"]))), contract, percent | times))
    return rows


def _accuracy(figures: dict[str, Any]) -> dict[str, float | None]:
    found = {column: _number(figures[name]) for name, column in _AP.items() if name in figures}
    return {column: _percent(value) for column, value in found.items()}


def _percent(value: float | None) -> float | None:
    return None if value is None or value < 0 else 100 * value


def _times_of_eval(row: dict[str, Any]) -> dict[str, float | None]:
    return {f"{name} ms": _number(row[f"{name}_milliseconds"]["median"]) for name in ("graph", "image")}


def _number(value: Any) -> float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError(f"{value!r} is not a number")
    return None if value is None else float(value)


def check_across(fields: Sequence[str]) -> None:
    """Raises UsageError for a field that no contract has."""
    for field in fields:
        if field not in known_fields() and field.partition(".")[0] not in ("hardware", "versions"):
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
