"""The ranges of a calibration, kept for the next build: a readable JSON file that says what it was made from, and is sealed.

Same key, same ranges; another key, and the caller learns what changed. A file that cannot be believed is refused, never half
used. Schema: ``apex_runtime/schemas/calibration.schema.json``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from apex_runtime.backends.reasons import REMEDIES, ReasonCode
from apex_runtime.cache_folder import cache_folder
from apex_runtime.errors import ModelError
from apex_runtime.files import write_atomically
from apex_runtime.precision.calibration_key import CacheKey, Sha256, digest_of
from apex_runtime.precision.ranges import Calibration, Method, Range

MAX_CACHE_BYTES = 8 << 20  # a hundred thousand tensors


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Bounds(_Record):
    """A range as the file has it."""

    least: float
    largest: float

    @model_validator(mode="after")
    def _ordered(self) -> Bounds:
        if self.least > self.largest:
            raise ValueError(f"the least value, {self.least}, is larger than the largest, {self.largest}")
        return self


class _File(_Record):
    """The file. ``sha256`` seals all other fields; ``key_sha256`` is the digest of the key alone."""

    format_version: Literal[1]
    kind: Literal["apex-x-calibration"]
    key: CacheKey
    key_sha256: Sha256
    images: int = Field(ge=1)
    ranges: dict[str, Bounds]
    quantised: dict[str, Bounds]
    sha256: Sha256

    @classmethod
    def of(cls, key: CacheKey, calibration: Calibration) -> _File:
        open_file = cls(
            format_version=1,
            kind="apex-x-calibration",
            key=key,
            key_sha256=key.sha256,
            images=calibration.images,
            ranges=_bounds(calibration.ranges),
            quantised=_bounds(calibration.quantised),
            sha256="0" * 64,
        )
        return open_file.model_copy(update={"sha256": open_file.seal})

    @property
    def seal(self) -> str:
        return digest_of(self.model_dump(mode="json", exclude={"sha256"}))

    @property
    def calibration(self) -> Calibration:
        return Calibration(_ranges(self.ranges), self.images, _ranges(self.quantised), self.key.method)

    @model_validator(mode="after")
    def _quantisable(self) -> _File:
        without = [name for name, item in self.quantised.items() if not item.least <= 0 <= item.largest]
        if without:
            raise ValueError(f"the range of {without[0]} does not contain 0")
        return self


@dataclass(frozen=True)
class Found:
    """What the cache has for a key: the calibration, or None and in words what changed since; no words where there is no file."""

    calibration: Calibration | None
    changes: tuple[str, ...] = ()


def default_cache_file(model_path: str | Path, profile: str, method: Method) -> Path:
    """The file in this user's cache folder for a model at this place, with what is asked of it."""
    asked = [str(Path(model_path).resolve()), profile, method]
    return cache_folder() / "calibration" / f"{digest_of(asked)[:32]}.json"


def read_cache(path: Path, key: CacheKey, tensors: Iterable[str] = (), quantised: Iterable[str] = ()) -> Found:
    """What was kept for this key, if it has all ranges of ``tensors`` and ``quantised``; it may have more.

    Raises ModelError, code ``calibration_cache_damaged``, for a file that cannot be believed.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_CACHE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return Found(None)
    except OSError as error:
        raise _refused(path, error.strerror or str(error)) from error
    kept = _parsed(path, data)
    changes = kept.key.changes(key)
    if not changes and not (kept.ranges.keys() >= set(tensors) and kept.quantised.keys() >= set(quantised)):
        changes = ("other tensors need a range",)
    return Found(None, changes) if changes else Found(kept.calibration)


def write_cache(path: Path, key: CacheKey, calibration: Calibration) -> None:
    """Keep a calibration, in one step: whoever reads meanwhile has the old file or the new one. Raises OSError.

    One with a NaN or an infinity is not kept, and an old one stays: that model is looked at anew at every build.
    """
    seen = (*calibration.ranges.values(), *calibration.quantised.values())
    if all(math.isfinite(item.magnitude) for item in seen):
        write_atomically(path, (_File.of(key, calibration).model_dump_json(indent=2) + "\n").encode("utf-8"))


def _parsed(path: Path, data: bytes) -> _File:
    if len(data) > MAX_CACHE_BYTES:
        raise _refused(path, f"larger than {MAX_CACHE_BYTES >> 20} MiB")
    try:
        kept = _File.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _refused(path, f"{'.'.join(map(str, first['loc'])) or 'record'}: {first['msg']}") from error
    if kept.key_sha256 != kept.key.sha256:
        raise _refused(path, "key_sha256 is not the digest of its key")
    if kept.sha256 != kept.seal:
        raise _refused(path, "it was changed after it was written: sha256 is not the digest of the rest")
    return kept


def _refused(path: Path, cause: str) -> ModelError:
    code = ReasonCode.CALIBRATION_CACHE_DAMAGED
    return ModelError(f"{path}: not a calibration that can be used ({cause}).", REMEDIES[code], path=path, code=code.value)


def _bounds(ranges: Mapping[str, Range]) -> dict[str, Bounds]:
    return {name: Bounds(least=item.least, largest=item.largest) for name, item in ranges.items()}


def _ranges(bounds: Mapping[str, Bounds]) -> dict[str, Range]:
    return {name: Range(item.least, item.largest) for name, item in bounds.items()}
