"""YAML from files that nobody vouches for: a limit of size and of depth, no aliases, and only plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from apex_runtime.errors import ConfigError, DataError

MAX_BYTES = 1_000_000  # of a description; 1 203 classes of LVIS are 20 000
MAX_DEPTH = 20  # exporters add their own blocks, of two or three levels


def read_yaml(file: Path, error: type[ConfigError] | type[DataError]) -> Any:
    """What a YAML file holds; None for an empty one. Raises ``error`` when it cannot be read or asks for too much."""
    try:
        if file.stat().st_size > MAX_BYTES:
            remedy = "A description names classes and folders; is it the right file?"
            raise error(f"{file}: larger than {MAX_BYTES} bytes.", remedy, path=file)
        text = file.read_bytes().decode("utf-8-sig")
        problem = _problem(text)
        if problem is not None:
            raise error(f"{file}: {problem[0]}.", problem[1], path=file)
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as cause:  # ValueError: not UTF-8, or a day like 2020-13-45
        raise error(f"{file}: not valid YAML ({_short(cause)}).", "Correct the file.", path=file) from cause
    except OSError as cause:
        message = f"{file}: cannot be read ({cause.strerror})."
        raise error(message, "Check the path and its permissions.", path=file) from cause


def _problem(text: str) -> tuple[str, str] | None:
    """No description needs what lets YAML grow without bound: aliases, merged level by level, and lists in lists in lists."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            return "it uses YAML aliases", "Write the values out."
        if depth > MAX_DEPTH:
            return f"more than {MAX_DEPTH} levels of lists", "Correct the file."
    return None


def _short(error: Exception) -> str:
    """The place and the problem, else the first line of an error's text; it may quote a file of a megabyte."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"[:200]
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
