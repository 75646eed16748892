"""The JSON files that rows are made of, against a model of what a row needs of them."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from apex_runtime.errors import DataError
from apex_runtime.fairness.evidence import read_json


class Record(BaseModel):
    """The fields that a row reads; there may be more."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


R = TypeVar("R", bound=Record)


def read_record(path: Path, kind: type[R]) -> R:
    """A file as ``kind``. Raises DataError with what is wrong and where, OSError (a missing file: FileNotFoundError)."""
    found = read_json(path)
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"{path.name}: {place}: {first['msg']}.", "Make it again.", path=path) from error
