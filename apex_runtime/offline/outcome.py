"""What a worker gives back for a block, and its way there."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from apex_runtime.pipeline.results import Failure

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True, eq=False)
class Outcome:
    """The answer for the block ``key``.

    ``lines``: its finished images as in results.jsonl, by id; ``detections``: how many each of them has. ``failures``: the other
    images. ``files``: what ``--save`` asked for, by path relative to the output folder. ``facts``: the engine as it ran there.
    ``seconds``: of the worker, for the block. ``error``: why the whole block could not be done, with ``remedy``; nothing else
    then means anything.
    """

    key: str
    lines: bytes = b""
    detections: tuple[int, ...] = ()
    failures: tuple[Failure, ...] = ()
    files: dict[str, bytes] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    without_place: int = 0
    seconds: float = 0.0
    error: str = ""
    remedy: str = ""

    def to_table(self) -> pyarrow.Table:
        """One row, as Ray Data moves it."""
        import pyarrow as pa

        head = {name: getattr(self, name) for name in _HEAD} | {"failures": [asdict(failure) for failure in self.failures]}
        head["names"] = list(self.files)  # in JSON, for names that are not UTF-8
        blobs = pa.large_binary()
        columns = {
            "head": pa.array([json.dumps(head)]),
            "lines": pa.array([self.lines], blobs),
            "contents": pa.array([list(self.files.values())], pa.list_(blobs)),
        }
        return pa.table(columns)

    @classmethod
    def from_table(cls, table: pyarrow.Table) -> list[Outcome]:
        """The outcomes in rows that ``to_table`` made."""
        return [cls._of(row) for row in table.to_pylist()]

    @classmethod
    def _of(cls, row: dict[str, Any]) -> Outcome:
        head = json.loads(row["head"])
        failures = tuple(Failure(**failure) for failure in head.pop("failures"))
        detections = tuple(head.pop("detections"))
        files = dict(zip(head.pop("names"), row["contents"], strict=True))
        return cls(**head, lines=row["lines"], files=files, failures=failures, detections=detections)


_HEAD = ("key", "detections", "facts", "without_place", "seconds", "error", "remedy")
