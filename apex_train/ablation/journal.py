"""What is done of a study: a file per cell, each written in one step, so that a killed study goes on where it was."""

from __future__ import annotations

import math
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from apex_runtime.errors import DataError
from apex_runtime.files import write_atomically

FOLDER = "cells"


class Entry(BaseModel):
    """The score of a cell: ``value`` of ``metric`` as a share, the seconds that its training took, the commit of the code."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    key: str
    metric: str
    value: float = Field(ge=0, le=1)
    training_seconds: float = Field(ge=0)
    commit: str | None


class Journal:
    """The entries under ``output/cells``. Several processes may add to it, each its own cells."""

    def __init__(self, output: Path) -> None:
        self._folder = output / FOLDER

    def add(self, entry: Entry) -> None:
        """Keep an entry, on the disk before this returns. Raises OSError."""
        write_atomically(self._path(entry.key), entry.model_dump_json(indent=2).encode(), durable=True)

    def find(self, key: str) -> Entry | None:
        """The entry of a cell; None when it has not been measured. Raises DataError for a file that cannot be believed."""
        path = self._path(key)
        try:
            entry = Entry.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise _damaged(path, error.errors()[0]["msg"]) from error
        if entry.key != key or not math.isfinite(entry.value):
            raise _damaged(path, f"it is of the cell {entry.key}")
        return entry

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"{path}: not an entry of this study ({why}).", "Remove the file: the cell is measured again.", path=path)
