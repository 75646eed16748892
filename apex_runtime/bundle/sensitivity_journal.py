"""Measurements of sets of regions, kept as they are made: a run that was ended goes on, one that was finished measures nothing.

JSON lines: the first says for what the others were measured, each further one is a set of regions with its comparison, sealed.
A last line that was cut short is dropped; whatever else cannot be believed is refused. Schema of a comparison: ``measured`` in
``apex_runtime/schemas/precision.schema.json``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from apex_runtime.backends.reasons import REMEDIES, ReasonCode
from apex_runtime.bundle.fp32_record import Measured
from apex_runtime.cache_folder import CACHE_VARIABLE, cache_folder
from apex_runtime.errors import ModelError, UsageError
from apex_runtime.precision.calibration_key import CacheKey, Sha256, digest_of

MAX_JOURNAL_BYTES = 32 << 20  # thousands of measurements


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class JournalKey(_Record):
    """What a measurement depends on: ``calibration``; ``val_sha256``, of images and labels; and, where times are measured, the
    ``processor`` and the number of ``threads``, else None."""

    calibration: CacheKey
    val_sha256: Sha256
    processor: str | None
    threads: int | None

    @property
    def sha256(self) -> str:
        """One digest of all parts, in hexadecimal."""
        return digest_of(self.model_dump(mode="json"))

    @property
    def path(self) -> Path:
        """Where this user's measurements for the key are."""
        return cache_folder() / "sensitivity" / f"{self.sha256[:32]}.jsonl"


class _Head(_Record):
    format_version: Literal[1]
    kind: Literal["apex-x-sensitivity"]
    key: JournalKey


class _Line(_Record):
    """One measurement; ``sha256`` seals it together with the key."""

    regions: tuple[str, ...] = Field(min_length=1)
    measured: Measured
    sha256: Sha256

    @classmethod
    def of(cls, regions: frozenset[str], measured: Measured, key_sha256: str) -> _Line:
        line = cls(regions=tuple(sorted(regions)), measured=measured, sha256="0" * 64)
        return line.model_copy(update={"sha256": line.seal(key_sha256)})

    def seal(self, key_sha256: str) -> str:
        return digest_of([key_sha256, self.model_dump(mode="json", exclude={"sha256"})])


Record = TypeVar("Record", bound=_Record)


class Journal:
    """The measurements for one key. ``found``: those that are there, by their set of regions."""

    def __init__(self, path: Path, key: JournalKey) -> None:
        """Reads what is there. Raises ModelError, code ``sensitivity_journal_damaged``, for a file that cannot be believed."""
        self._path, self._key, self._key_sha256 = path, key, key.sha256
        self.found = dict(self._read())

    def add(self, regions: frozenset[str], measured: Measured) -> None:
        """Keep a measurement; it is on the disk when this returns. Raises UsageError for a folder that cannot be written."""
        head = _Head(format_version=1, kind="apex-x-sensitivity", key=self._key)
        line = _Line.of(regions, measured, self._key_sha256)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as stream:
                records = (line,) if stream.tell() else (head, line)
                stream.write("".join(f"{record.model_dump_json()}\n" for record in records).encode())
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            cause = f"{self._path}: measurements cannot be kept there ({error.strerror or error})."
            raise UsageError(cause, f"Make the folder writable, or name another in {CACHE_VARIABLE}.") from error
        self.found[regions] = measured

    def _read(self) -> Iterator[tuple[frozenset[str], Measured]]:
        first, *others = self._whole_lines() or [b""]
        if first and self._parsed(_Head, first, 1).key != self._key:
            raise self._refused(1, "it belongs to another model, other images or other options")
        for number, text in enumerate(others, 2):
            line = self._parsed(_Line, text, number)
            if line.sha256 != line.seal(self._key_sha256):
                raise self._refused(number, "sha256 is not the digest of the rest: it was changed, or comes from another journal")
            yield frozenset(line.regions), line.measured

    def _whole_lines(self) -> list[bytes]:
        """The lines that were written to their end; one that was not is cut off the file."""
        try:
            with self._path.open("rb") as stream:
                data = stream.read(MAX_JOURNAL_BYTES + 1)
            if len(data) > MAX_JOURNAL_BYTES:
                raise self._refused(1, f"the file is larger than {MAX_JOURNAL_BYTES >> 20} MiB")
            whole = data[: data.rfind(b"\n") + 1]
            if whole != data:
                os.truncate(self._path, len(whole))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._refused(1, error.strerror or str(error)) from error
        return whole.split(b"\n")[:-1]

    def _parsed(self, kind: type[Record], text: bytes, number: int) -> Record:
        try:
            return kind.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise self._refused(number, f"{'.'.join(map(str, first['loc'])) or 'line'}: {first['msg']}") from error

    def _refused(self, line: int, cause: str) -> ModelError:
        code = ReasonCode.SENSITIVITY_JOURNAL_DAMAGED
        words = f"{self._path}, line {line}: no measurement that can be used ({cause})."
        return ModelError(words, REMEDIES[code], path=self._path, code=code.value)
