"""Looks at images that were kept: a file for each, named by everything that the look depends on.

A long search that was stopped goes on, and one with another share, emphasis or choice of signals looks at nothing again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from apex_runtime.files import write_atomically
from apex_train.mining.look import Fared

_DIGITS = 32
_READER = TypeAdapter(Fared)


class KeptLooks:
    """The looks in a folder. ``about``: what all of them depend on, as plain values: model, data, size, views, budget, loss."""

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self._folder = folder
        self._about = json.dumps(about, sort_keys=True)

    def find(self, file_name: str, place: int) -> Fared | None:
        """The look at an image that is at ``place`` of its set; None when there is none, or its file is damaged."""
        try:
            return replace(_READER.validate_json(self._path(file_name).read_bytes()), place=place)
        except (OSError, ValidationError):
            return None

    def add(self, file_name: str, fared: Fared) -> None:
        """Keep a look. Raises OSError."""
        write_atomically(self._path(file_name), json.dumps(asdict(fared)).encode())

    def _path(self, file_name: str) -> Path:
        digest = hashlib.sha256(f"{self._about}\0{file_name}".encode()).hexdigest()
        return self._folder / f"{digest[:_DIGITS]}.json"
