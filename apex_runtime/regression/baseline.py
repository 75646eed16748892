"""A measurement as a file: what ``bench record`` writes, ``bench check`` compares and ``bench trend`` collects.

Schema: ``apex_runtime/schemas/baseline.schema.json``. The frame of a file is checked when it is read; its figures are
not: they are judged one by one, so that a report can say which of them is none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from apex_runtime.errors import DataError, UsageError

BASELINE_FORMAT_VERSION = 1
KIND = "apex-x-baseline"
MAX_BYTES = 4 << 20
AGAIN = "Record it again: apex-rt bench record ENGINE --output FILE.json"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Engine(_Record):
    """What was measured."""

    model_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    executed: str
    precision: str | None
    input: tuple[int, int]
    tiles: int = Field(ge=1)


class Contract(_Record):
    """How. ``clock``: own is the wall's without the time that a thread waits for a core."""

    timed: str
    threads: int = Field(ge=1)
    device: str
    clock: Literal["own", "wall"]
    anchor_sha256: str | None
    backend_version: str


class Code(_Record):
    """Which state of this project measured; None is what was not known."""

    version: str | None
    commit: str | None
    dirty: bool | None


class Measured(_Record):
    """How long, and whether that was enough for what was asked."""

    rounds: int = Field(ge=1)
    seconds: float = Field(ge=0, allow_inf_nan=False)
    settled: bool


class Machine(BaseModel):
    """What a time depends on, of what ``apex_runtime.machine`` says."""

    model_config = ConfigDict(extra="allow", frozen=True)

    processor: str
    usable_cpus: int
    system: str
    gpus: tuple[dict[str, Any], ...]


class Circumstances(BaseModel):
    """Machine, its state before and after, versions."""

    model_config = ConfigDict(extra="allow", frozen=True)

    machine: Machine


class Measurement(_Record):
    """A whole file. ``metrics``: by name ``value`` and ``unit``, and of what was sampled ``low``, ``high``, ``samples``."""

    format_version: int = Field(ge=BASELINE_FORMAT_VERSION, le=BASELINE_FORMAT_VERSION)
    kind: Literal["apex-x-baseline"]
    created_utc: str
    code: Code
    engine: Engine
    contract: Contract
    budgets: tuple[str, ...] = Field(min_length=1)
    measured: Measured
    metrics: dict[str, Any]
    circumstances: Circumstances

    def value(self, name: str) -> object:
        """The figure of a metric as it stands there; None when it is missing."""
        found = self.metrics.get(name)
        return found.get("value") if isinstance(found, dict) else found


def read_measurement(path: Path) -> Measurement:
    """Read a file of ``bench record``. Raises UsageError when there is none, DataError when it is not such a file."""
    if not path.is_file():
        raise UsageError(f"{path}: no such file.", AGAIN, path=path)
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path}: larger than a measurement can be.", AGAIN, path=path)
    try:
        return Measurement.model_validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        words = f"{'.'.join(map(str, problem['loc'])) or 'file'}: {problem['msg']}"
        raise DataError(f"{path}: not a measurement of this version ({words}).", AGAIN, path=path) from error
