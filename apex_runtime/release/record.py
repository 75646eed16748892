"""Reading the JSON files that rows are made of, against a model of what a row needs of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from apex_runtime.errors import DataError


class Record(BaseModel):
    """The fields that a row reads; there may be more."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


R = TypeVar("R", bound=Record)


def read_record(path: Path, kind: type[R]) -> R:
    """A file as ``kind``. Raises DataError with what is wrong and where, OSError (a missing file: FileNotFoundError)."""
    try:
        return kind.model_validate(json.loads(path.read_bytes(), parse_constant=_refuse))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise DataError(f"{path.name}: {place}: {first['msg']}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path.name} is not JSON: {error}.") from error


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")
