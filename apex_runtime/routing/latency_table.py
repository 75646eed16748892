"""The latency table: how long one engine takes on this machine at every number of tiles. ``bench`` writes it, deadlines read it.

One JSON file per key in the user's cache folder. A file that is damaged, of another version or of another key is refused with the
command that makes a new one; it is never half believed.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from apex_runtime.backends.capabilities import BACKENDS, probe
from apex_runtime.backends.reasons import ReasonCode, argument_error
from apex_runtime.cache_folder import cache_folder
from apex_runtime.files import write_atomically
from apex_runtime.machine import gpus, processor, usable_cpus

if TYPE_CHECKING:
    from apex_runtime.bundle.load import Opened

MIN_SAMPLES = 20  # fewer have no 95th percentile worth a promise
MAX_TABLE_BYTES = 1 << 20

Milliseconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TableKey(_Record):
    """What a table is about. Another version of the backend, another processor or GPU, another size: another table."""

    model_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    backend: str
    backend_version: str
    machine: str
    device: str
    input: tuple[int, int]
    threads: int | None
    batch: int = Field(ge=1)

    @classmethod
    def of(cls, opened: Opened, threads: int | None, batch: int, device: str = "cpu") -> TableKey:
        """The key of an opened engine; ``threads`` None is what the backend makes of it, and a key of its own."""
        info = opened.session.info
        return cls(
            model_sha256=opened.digest,
            backend=opened.executed,
            backend_version=probe(opened.executed).version if opened.executed in BACKENDS else "",
            machine="; ".join([f"{processor()}, {usable_cpus()} cpus", *(gpu["name"] for gpu in gpus())]),
            device=device,
            input=(info.input.height, info.input.width),
            threads=threads,
            batch=batch,
        )


class Point(_Record):
    """One number of tiles (of all levels) and the milliseconds of a call of ``batch`` images, from files to detections."""

    tiles: int = Field(ge=1)
    samples: int = Field(ge=MIN_SAMPLES)
    p50: Milliseconds
    p95: Milliseconds


class LatencyTable(_Record):
    """Points from one tile to all of them, none faster than one with fewer tiles."""

    format_version: Literal[1] = 1
    kind: Literal["apex-x-latency-table"] = "apex-x-latency-table"
    key: TableKey
    points: tuple[Point, ...] = Field(min_length=1)
    created_utc: str
    circumstances: dict[str, Any]

    @model_validator(mode="after")
    def _monotone(self) -> LatencyTable:
        if self.points[0].tiles != 1:
            raise ValueError("the first point is not that of one tile")
        if any(point.p95 < point.p50 for point in self.points):
            raise ValueError("a p95 lies below its p50")
        for before, after in pairwise(self.points):
            if after.tiles <= before.tiles or after.p50 < before.p50 or after.p95 < before.p95:
                raise ValueError(f"the point of {after.tiles} tiles does not rise above that of {before.tiles}")
        return self


def monotone(points: Iterable[Point]) -> tuple[Point, ...]:
    """Points by number of tiles, one for each, with the running maximum of their times: more tiles are never faster."""
    found: list[Point] = []
    for point in sorted(points, key=lambda item: item.tiles):
        before = found[-1] if found else point
        risen = point.model_copy(update={"p50": max(before.p50, point.p50), "p95": max(before.p95, point.p95)})
        if found and before.tiles == point.tiles:
            found.pop()
        found.append(risen)
    return tuple(found)


def table_path(key: TableKey) -> Path:
    """The file of a key."""
    digest = hashlib.sha256(key.model_dump_json().encode("utf-8")).hexdigest()
    return cache_folder() / "latency" / f"{digest[:32]}.json"


def bench_command(engine: str | Path, key: TableKey, permissive: bool = False) -> str:
    """The command that makes the table of this key."""
    words = ["apex-rt", "bench", str(engine)]
    words += [] if key.threads is None else ["--threads", str(key.threads)]
    words += [] if key.batch == 1 else ["--batch", str(key.batch)]
    words += [] if key.device == "cpu" else ["--device", key.device]
    return shlex.join(words + (["--policy", "permissive"] if permissive else []))


def write_table(table: LatencyTable) -> Path:
    """Write a table in one step into the cache folder; returns its file. Raises OSError."""
    path = table_path(table.key)
    write_atomically(path, (table.model_dump_json(indent=2) + "\n").encode("utf-8"))
    return path


def read_table(key: TableKey, asked: str, command: str) -> LatencyTable:
    """The table of a key. Raises UsageError, code ``latency_table_missing``, when there is none or it cannot be believed.

    ``asked`` is the budget and ``command`` the remedy that the error names.
    """
    path = table_path(key)
    remedy = f"Make one: {command}"
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise ValueError("larger than a latency table can be")
        table = LatencyTable.model_validate(json.loads(path.read_text(encoding="utf-8")))
        if table.key != key:
            raise ValueError("it is about another engine or machine than its name says")
    except FileNotFoundError:
        about = f"budget {asked}: no latency table for this engine on this machine"
        settings = f"threads {key.threads or 'default'}, batch {key.batch}"
        raise argument_error(ReasonCode.LATENCY_TABLE_MISSING, f"{about} ({settings}).", remedy=remedy) from None
    except (OSError, ValueError, RecursionError) as error:
        refused = f"budget {asked}: {path} is not a latency table that can be used ({_first_problem(error)})."
        raise argument_error(ReasonCode.LATENCY_TABLE_MISSING, refused, remedy=remedy) from error
    return table


def _first_problem(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'record'}: {first['msg']}"
