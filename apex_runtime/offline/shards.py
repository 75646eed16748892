"""The shards of a job: what each finished block gave, on the disk of who started the job, and nothing else writes there.

``shards/000000065-1f0c...jsonl``   the images of the block as in results.jsonl; named by the first image and a hash of the block
``shards/000000065-1f0c...parquet`` the same as a table, when asked for; the name of the lines then begins with ``_``, and readers
                                    of tables skip them
``shards/_000000065-1f0c...json``   the index. It comes last: a shard without it, or whose lines are not the ones of which it has
                                    the SHA-256, is not there, and its block is done again under the same name
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from apex_runtime.errors import DataError
from apex_runtime.files import write_atomically
from apex_runtime.offline.blocks import Block
from apex_runtime.offline.outcome import Outcome
from apex_runtime.offline.parquet import parquet_bytes
from apex_runtime.pipeline.results import SHARDS, Failure, head_of, shard_files

FORMATS = ("jsonl", "parquet")


@dataclass(frozen=True)
class Index:
    """What a shard holds: ``names`` of its finished images by the order of the lines, ``detections`` of each, the SHA-256 of its
    lines, the other images of the block as ``failures``; ``without_place`` and ``seconds`` as in its ``Outcome``."""

    names: tuple[str, ...]
    detections: tuple[int, ...]
    failures: tuple[Failure, ...]
    sha256: str
    without_place: int
    seconds: float

    @classmethod
    def parse(cls, text: bytes) -> Index:
        """What was written as JSON. Raises ValueError, TypeError, KeyError for anything else."""
        document: dict[str, Any] = json.loads(text)
        failures = tuple(Failure(**failure) for failure in document.pop("failures"))
        names, detections = tuple(map(str, document.pop("names"))), tuple(map(int, document.pop("detections")))
        if len(names) != len(detections):
            raise ValueError("not a number of detections for each image")
        return cls(names, detections, failures, **document)


@dataclass(frozen=True)
class Shard:
    """A finished shard: its name without an ending, and its index."""

    key: str
    index: Index


class ShardStore:
    """The folder ``shards`` of an output folder. One process writes it."""

    def __init__(self, output: Path, kind: str = "jsonl") -> None:
        """``kind``: one of ``FORMATS``; lines of JSON are always there, for they are what the job goes on from."""
        self.output = output
        self.folder = output / SHARDS
        self.kind = kind

    def finished(self) -> list[Shard]:
        """What is whole, by the ids of the images; what is not is removed."""
        found = []
        for key in sorted({path.stem.removeprefix("_") for path in shard_files(self.output)}):
            index = self._index(key)
            if index is not None:
                found.append(Shard(key, index))
            else:
                self._remove(*self._names(key))
        return found

    def write(self, block: Block, outcome: Outcome) -> Shard:
        """What a block gave: the files of its images, its lines, and at last the index. Raises OSError, DataError."""
        names = _checked_names(block, outcome)
        for name, content in outcome.files.items():
            path = self.output / name
            if not path.resolve().is_relative_to(self.output.resolve()):
                raise DataError(f"{name}: a worker sent a file that does not stay in the output folder.", "Check the workers.")
            write_atomically(path, content)
        index_name, hidden, open_name, table = self._names(block.key)
        if self.kind == "parquet":
            self._remove(index_name, open_name)
            write_atomically(self.folder / hidden, outcome.lines)
            write_atomically(self.folder / table, parquet_bytes(outcome.lines))
        else:
            self._remove(index_name, hidden, table)  # an earlier try may have asked for tables
            write_atomically(self.folder / open_name, outcome.lines)
        digest = hashlib.sha256(outcome.lines).hexdigest()
        index = Index(
            names=names,
            detections=outcome.detections,
            failures=outcome.failures,
            sha256=digest,
            without_place=outcome.without_place,
            seconds=outcome.seconds,
        )
        return self._with_index(Shard(block.key, index))

    def without_failures(self, shard: Shard) -> Shard:
        """The shard as one of its finished images alone: the others are tried again."""
        if not shard.index.failures:
            return shard
        return self._with_index(Shard(shard.key, replace(shard.index, failures=())))

    def lines(self, shard: Shard) -> Iterator[bytes]:
        """The lines of a shard. Raises DataError when they are not the ones that were written."""
        path = self._lines_of(shard.key)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error}).", _AGAIN, path=path) from error
        if hashlib.sha256(content).hexdigest() != shard.index.sha256:
            raise DataError(f"{path}: was changed after it was written.", _AGAIN, path=path)
        yield from content.splitlines(keepends=True)

    def _with_index(self, shard: Shard) -> Shard:
        write_atomically(self.folder / f"_{shard.key}.json", json.dumps(asdict(shard.index)).encode())
        return shard

    @staticmethod
    def _names(key: str) -> tuple[str, str, str, str]:
        """The files that a shard may have: its index, its lines beside a table, its lines alone, its table."""
        return f"_{key}.json", f"_{key}.jsonl", f"{key}.jsonl", f"{key}.parquet"

    def _remove(self, *names: str) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def _lines_of(self, key: str) -> Path:
        """Where the lines of a shard are; an earlier try may have asked for another format."""
        hidden = self.folder / f"_{key}.jsonl"
        return hidden if hidden.exists() else self.folder / f"{key}.jsonl"

    def _index(self, key: str) -> Index | None:
        try:
            index = Index.parse((self.folder / f"_{key}.json").read_bytes())
            whole = hashlib.sha256(self._lines_of(key).read_bytes()).hexdigest() == index.sha256
            wanted = self.kind != "parquet" or (self.folder / f"{key}.parquet").is_file()
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return index if whole and wanted else None


_AGAIN = "Remove this file and run the command again with --resume: its images are done anew."


def _checked_names(block: Block, outcome: Outcome) -> tuple[str, ...]:
    """The names of the finished images. Raises DataError unless every image of the block has just one answer."""
    names = [str(head_of(line)["file_name"]) for line in outcome.lines.splitlines(keepends=True)]
    answered = sorted([*names, *(failure.file_name for failure in outcome.failures)])
    if answered != sorted(image.name for image in block.images):
        raise DataError(f"block {block.key}: a worker's answer is not one for each image.", "Report this with the log of Ray.")
    return tuple(names)
