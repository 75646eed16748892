"""The rows of reports: every figure with where it is from, its budget, and the contract under which it was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from apex_runtime.errors import DataError, UsageError
from apex_runtime.fairness.contract import Contract
from apex_runtime.fairness.evidence import REPORT_NAME, read_evidence, read_json
from apex_runtime.short_names import told_apart

_AP = {f"mAP_{kind}": f"{kind} AP" for kind in ("bbox", "segm")} | {f"AP50_{kind}": f"{kind} AP50" for kind in ("bbox", "segm")}


@dataclass(frozen=True)
class Row:
    """A row of a report: where it is from, its budget (empty for none), its contract, and its figures by the name of a column."""

    source: str
    budget: str
    contract: Contract
    figures: dict[str, float | None]


def read_reports(paths: Sequence[Path]) -> list[Row]:
    """The rows of reports of ``bench``, ``eval`` or ``bench frontier``, and of evidence bundles. Raises UsageError, DataError."""
    return [row for path, name in zip(paths, told_apart(paths), strict=True) for row in _read(path, name)]


def _read(path: Path, name: str) -> list[Row]:
    if path.is_dir():
        read_evidence(path)
    elif not path.is_file():
        raise UsageError(f"{path}: no such report.", "Name a file written with --output, or an evidence bundle.", path=path)
    report = read_json(path / REPORT_NAME if path.is_dir() else path)
    try:
        if "contenders" in report:
            rows = [row for each in report["contenders"] for row in _of_contender(name, each)]
        else:
            rows = _rows(name, report, Contract.model_validate(report["fairness"]))
    except KeyError as error:
        message = f"{path}: no report with a fairness contract (it lacks {error})."
        raise DataError(message, "Measure again with apex-rt bench or apex-rt eval.", path=path) from error
    except (ValidationError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(f"{path}: damaged ({_first(error)}).", "Measure again.", path=path) from error
    if not rows:
        raise DataError(f"{path}: a report without rows.", "Measure again.", path=path)
    return rows


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        found = error.errors()[0]
        return f"{'.'.join(map(str, found['loc']))}: {found['msg']}"
    return f"{type(error).__name__}: {error}".splitlines()[0][:150]


def _rows(source: str, report: dict[str, Any], contract: Contract) -> list[Row]:
    if "budgets" in report:
        return [_of_eval(source, row, contract) for row in report["budgets"]]
    if "scores" in report:
        return [Row(source, "", contract, _accuracy(report["scores"]["figures"]))]
    rows = [_of_bench(source, row, contract) for row in report["rows"]]
    if "against" in report:
        other, name = Contract.model_validate(report["against"]["fairness"]), f"{source}, against"
        rows += [_of_bench(name, row, other) for row in report["against"]["rows"]]
    return rows


def _of_eval(source: str, row: dict[str, Any], contract: Contract) -> Row:
    times = {f"{name} ms": _number(row[f"{name}_milliseconds"]["median"]) for name in ("graph", "image")}
    return Row(source, _text(row["budget"]), contract, _accuracy(row["figures"]) | times)


def _of_bench(source: str, row: dict[str, Any], contract: Contract) -> Row:
    own = Contract.model_validate(contract.model_dump() | {"batch": row["batch"]})
    if own.sha256() != row["contract_sha256"]:
        raise ValueError("a row's contract is not the one it names")
    figures = {f"{name.replace('_', ' ')} ms": _number(row[name]["median"]) for name in ("graph", "end_to_end")}
    return Row(source, _text(row["budget"]), own, figures | {"images/s": _number(row["end_to_end"]["images_per_second"])})


def _of_contender(source: str, contender: dict[str, Any]) -> list[Row]:
    """Of a frontier, each with the title of its detector; random tiles as the mean over their seeds."""
    contract = Contract.model_validate(contender["fairness"])
    if contract.sha256() != contender["contract_sha256"]:
        raise ValueError("a contract is not the one that is named")
    rows, title = [], f"{source}: {_text(contender['title'])}"
    for row in (row for row in contender["rows"] if row["seed"] is None):
        figures = {f"{kind} {name}": row.get(f"{name}_{kind}") for kind in ("bbox", "segm") for name in ("AP", "AP50")}
        percent = {name: _percent(_number(found["value"])) for name, found in figures.items() if found is not None}
        times = {f"{name} ms": _number(row[f"{name}_ms"]) for name in ("graph", "image")}
        rows.append(Row(title, " ".join(filter(None, (row["line"], row["budget"]))), contract, percent | times))
    return rows


def _accuracy(figures: dict[str, Any]) -> dict[str, float | None]:
    found = {column: _number(figures[name]) for name, column in _AP.items() if name in figures}
    return {column: _percent(value) for column, value in found.items()}


def _percent(value: float | None) -> float | None:
    return None if value is None or value < 0 else 100 * value


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text")
    return value
