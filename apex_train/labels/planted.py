"""The record of noise that was planted into labels: which annotations are wrong, how, and what they were. JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from apex_runtime.bundle.hashing import sha256_of
from apex_runtime.errors import DataError

Kind = Literal["missing", "shifted", "wrong-class", "spurious"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Truth(_Section):
    """What an annotation was: class, box [x, y, width, height] in pixels, and segmentation where it had one."""

    category_id: int
    bbox: tuple[float, float, float, float]
    segmentation: dict[str, Any] | None = None


class Planted(_Section):
    """One wrong annotation by its id; a missing one has that which it had. ``before`` is None of what never was an object."""

    id: int
    image_id: int
    kind: Kind
    before: Truth | None = None


class Record(_Section):
    """All of them. ``annotations_sha256`` is of the file that they are in, ``source`` the fingerprint of the clean split."""

    format_version: Literal[1] = 1
    content: Literal["planted-noise"] = "planted-noise"
    split: str
    seed: int
    rates: dict[Kind, float]
    objects: int
    source: str
    annotations_sha256: str
    planted: tuple[Planted, ...]


def read_record(path: Path, annotations: Path) -> Record:
    """The record of the noise in the file ``annotations``. Raises DataError when it is none, or of another file."""
    try:
        record = Record.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).", "Give the record of planted noise.", path=path) from error
    except ValidationError as error:
        message = f"{path}: not a record of planted noise ({error.errors()[0]['msg']})."
        raise DataError(message, "Plant it again.", path=path) from error
    if not annotations.is_file() or record.annotations_sha256 != sha256_of(annotations):
        raise DataError(
            f"{path}: it is not of {annotations}, or that file has changed since.",
            "Give the record that was written with it.",
            path=path,
        )
    return record
