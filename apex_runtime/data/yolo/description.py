"""The description file of a YOLO set, ``data.yaml``: its classes, and what each split is made of.

    path: .                 # optional; the set's folder, otherwise that of this file
    train: images/train     # a folder, a list of images (.txt), or several of either
    val: [images/val, more.txt]
    nc: 2                   # optional
    names: [car, bus]       # or {0: car, 1: bus}

Sets are moved and the paths in them are not: an entry that does not exist as it is written is looked for by its end below the
set's folder, so ``/content/cars/images/train`` and the ``../train/images`` of Roboflow exports are found.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from apex_runtime.data.findings import shown
from apex_runtime.data.layouts import YOLO_FILES, split_name, yolo_file
from apex_runtime.data.read_yaml import read_yaml
from apex_runtime.errors import DataError, UsageError

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class YoloDescription:
    """The classes by index, the entries of each split as they are written, and the folders that these are relative to."""

    file: Path
    names: tuple[str, ...]
    roots: tuple[Path, ...]
    splits: dict[str, tuple[str, ...]]


def load_description(data: Path) -> YoloDescription:
    """Read the description of a folder, or the file itself. Raises UsageError when there is none, DataError for what is in it."""
    file = yolo_file(Path(data))
    if file is None:
        raise UsageError(
            f"{data}: no description of a YOLO set.", f"Expected {', '.join(YOLO_FILES)}, or such a file itself.", path=data
        )
    document = _read(file)
    if "kpt_shape" in document:
        _fail(
            file,
            "it describes key points (kpt_shape)",
            "Boxes and polygons are read; export the set as detection or segmentation.",
        )
    return YoloDescription(file, _names(file, document), _roots(file, document), _splits(file, document))


def locate(entry: str, roots: Sequence[Path], is_there: Callable[[Path], bool], least: int = 1) -> Path | None:
    """The path that an entry means: as written from the first root that has it, else its longest end of at least ``least`` parts.

    Ends are tried only for what may have moved: absolute paths, those of Windows, and those that leave the folder.
    """
    pure = PurePosixPath(entry.replace("\\", "/"))
    moved = pure.is_absolute() or ".." in pure.parts or entry[1:2] == ":"
    parts = [part for part in pure.parts if part not in ("/", "..")]
    ends = [PurePosixPath(*parts[start:]) for start in range(len(parts) - least + 1)] if moved else []
    candidates = (root / end for end in (pure, *ends) for root in roots)
    return next((Path(os.path.normpath(path)) for path in candidates if _holds(is_there, path)), None)


def _holds(is_there: Callable[[Path], bool], path: Path) -> bool:
    try:
        return is_there(path)
    except OSError:  # a name that is too long, a folder that may not be entered
        return False


def _read(file: Path) -> dict[Any, Any]:
    document = read_yaml(file, DataError)
    if not isinstance(document, dict):
        _fail(file, "not a description: no names and no splits", "It needs names, and train, val or test.")
    return document


def _names(file: Path, document: dict[Any, Any]) -> tuple[str, ...]:
    """The classes by index; keys of a dict in any order, without gaps."""
    names = document.get("names")
    if isinstance(names, dict):
        names = _ordered(file, names)
    if not isinstance(names, list) or not names:
        _fail(file, "no names of classes", "Write names: [first, second], or names with one line per index.")
    # YAML reads a bare no, off or 3 as something else than text.
    odd = [index for index, name in enumerate(names) if isinstance(name, bool) or not isinstance(name, str | int | float)]
    if odd:
        _fail(file, f"names that are not text, at index {shown(odd)}", "Put them in quotes.")
    count = document.get("nc")
    if count is not None and count != len(names):
        _fail(file, f"nc does not fit the {len(names)} names, it is {count!r:.40}", "Correct nc, or leave it out.")
    return tuple(str(name) for name in names)


def _ordered(file: Path, names: dict[Any, Any]) -> list[Any]:
    try:
        by_index = {int(key): name for key, name in names.items() if not isinstance(key, bool | float)}
    except (TypeError, ValueError):
        by_index = {}
    if len(by_index) != len(names):
        _fail(file, "names with keys that are not class indices", "Number the classes from 0.")
    missing = [index for index in range(len(by_index)) if index not in by_index]
    if missing:
        _fail(file, f"no name for class index {shown(missing)}", "Number the classes from 0 without gaps.")
    return [by_index[index] for index in range(len(by_index))]


def _roots(file: Path, document: dict[Any, Any]) -> tuple[Path, ...]:
    """The folder that ``path`` names, if it exists here, and that of the file."""
    written = document.get("path")
    if written is None or written == "":
        return (file.parent,)
    if not isinstance(written, str):
        _fail(file, "path is not text", "Name the folder of the set, or leave path out.")
    named = locate(written, [file.parent], Path.is_dir)
    return (file.parent,) if named is None or named == file.parent else (named, file.parent)


def _splits(file: Path, document: dict[Any, Any]) -> dict[str, tuple[str, ...]]:
    splits: dict[str, tuple[str, ...]] = {}
    for key, value in document.items():
        name = split_name(key) if isinstance(key, str) and key.isalpha() else ""  # train2017 beside train is not read
        if name not in _SPLITS or value is None or value == "" or value == []:
            continue
        entries = [value] if isinstance(value, str) else value
        if not isinstance(entries, list) or not all(isinstance(entry, str) and entry for entry in entries):
            _fail(file, f"{key} is neither a path nor a list of paths", "Name a folder, a list file, or several of them.")
        if name in splits:
            _fail(file, f"{name} is described twice (last by {key})", "Keep one of the two.")
        splits[name] = tuple(entries)
    return splits


def _fail(file: Path, what: str, remedy: str) -> NoReturn:
    raise DataError(f"{file}: {what}.", remedy, path=file)
