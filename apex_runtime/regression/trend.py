"""The trend: one line per measurement, all of one schema, to which lines are only ever added.

Schema of a line: ``apex_runtime/schemas/trend.schema.json``. A file with lines that cannot be read is refused with
their numbers, and nothing is added to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from apex_runtime.errors import DataError, UsageError
from apex_runtime.files import write_atomically
from apex_runtime.regression.baseline import Measurement
from apex_runtime.regression.check import is_judged
from apex_runtime.regression.rule import figure

TREND_FORMAT_VERSION = 1
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Row(BaseModel):
    """One measurement. ``series`` is what must be equal for two rows to lie on one line: machine, backend, settings,
    input."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = Field(ge=TREND_FORMAT_VERSION, le=TREND_FORMAT_VERSION)
    created_utc: str = Field(min_length=10)
    commit: str | None
    model_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    series: str = Field(min_length=1)
    metrics: dict[str, Positive] = Field(min_length=1)


def row_of(measurement: Measurement, path: Path) -> Row:
    """The line of a measurement: its judged metrics. Raises DataError when one of them is no figure, or there is
    none."""
    anchored = measurement.contract.anchor_sha256 is not None
    found = {name: figure(measurement.value(name)) for name in measurement.metrics if is_judged(name, anchored, False)}
    wrong = [name for name, value in found.items() if value is None]
    if wrong or not found:
        problem = f"{', '.join(wrong)}: not a positive number" if wrong else "it has no metrics"
        raise DataError(f"{path}: cannot be added ({problem}).", "Record it again: apex-rt bench record", path=path)
    return Row(
        format_version=TREND_FORMAT_VERSION,
        created_utc=measurement.created_utc,
        commit=measurement.code.commit,
        model_sha256=measurement.engine.model_sha256,
        series=_series(measurement),
        metrics={name: value for name, value in found.items() if value is not None},
    )


def _series(item: Measurement) -> str:
    machine, contract = item.circumstances.machine, item.contract
    gpus = [] if contract.device == "cpu" else [str(gpu.get("name")) for gpu in machine.gpus]
    words = [f"{machine.processor}, {machine.usable_cpus} cpus", *gpus]
    words += [
        f"{item.engine.executed} {contract.backend_version}",
        f"{contract.threads} threads",
        contract.device,
        f"{contract.clock} time",
    ]
    words += ["x".join(map(str, item.engine.input)), f"anchor {(contract.anchor_sha256 or 'none')[:8]}"]
    return "; ".join(words)


def read_trend(path: Path) -> list[Row]:
    """The lines of a file in their order. Raises UsageError when there is none, DataError with the numbers of damaged
    lines."""
    if not path.is_file():
        raise UsageError(f"{path}: no such file.", "Begin one with --add FILE.json (of apex-rt bench record).", path=path)
    return _parse(path.read_bytes(), path)


def _parse(data: bytes, path: Path) -> list[Row]:
    rows: list[Row] = []
    damaged: list[int] = []
    for number, line in enumerate(data.splitlines(), 1):
        try:
            rows.append(Row.model_validate_json(line, strict=True))
        except ValidationError:
            damaged.append(number)
    if data and not data.endswith(b"\n") and len(data.splitlines()) not in damaged:
        damaged.append(len(data.splitlines()))
    if damaged:
        named = ", ".join(map(str, damaged[:10])) + (" and more" if len(damaged) > 10 else "")
        remedy = "Restore the file, or take these lines out of it; nothing was changed."
        raise DataError(f"{path}: damaged line {named}.", remedy, path=path)
    return rows


def add_row(path: Path, row: Row) -> list[Row]:
    """Add a line, in one step; all lines. A file that is not there begins with it.

    Raises DataError for damaged lines, UsageError when the measurement is already there; the file is then as it was.
    """
    before = path.read_bytes() if path.exists() else b""
    rows = _parse(before, path)
    if row in rows:
        raise UsageError(f"{path}: this measurement ({row.created_utc}) is already in it.", "Leave --add out.", path=path)
    write_atomically(path, before + row.model_dump_json().encode("utf-8") + b"\n", durable=True)
    return [*rows, row]


def by_series(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows that may be compared, in their order."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.series, []).append(row)
    return found
