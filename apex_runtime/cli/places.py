"""Where a command may write: asked before it begins, for a place that cannot be written is known now and not after minutes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from apex_runtime.errors import UsageError


def check_places(files: Mapping[str, str | None], read: Sequence[str] = (), evidence: str | None = None) -> None:
    """Make the folders of files, by option. ``read``: what the command reads, which is not overwritten. ``evidence``: a bundle.

    Raises UsageError for a file that cannot be written, or would take the place of another, and for a bundle that has none.
    """
    inputs = [Path(name).resolve() for name in read]
    taken = dict.fromkeys(inputs, "it is what is read")
    if evidence is not None:
        _check_bundle(evidence)
        taken[Path(evidence).resolve()] = "it is the folder of --evidence"
    for option, path in ((option, Path(file)) for option, file in files.items() if file is not None):
        place = path.resolve()
        why = taken.setdefault(place, "") or _part_of(place, inputs) or _why_not(path)
        if why:
            raise UsageError(f"{option} {path}: cannot be written ({why}).", "Name another file.", path=path)
        taken[place] = f"it is the file of {option}"


def check_suffix(option: str, path: str | None, suffixes: Sequence[str]) -> None:
    """Raises UsageError for a file whose name says that something else is in it."""
    if path is not None and Path(path).suffix.lower() not in suffixes:
        wanted = " or ".join(suffixes)
        raise UsageError(f"{option} {path}: does not end in {wanted}.", f"Name a file that ends in {wanted}.", path=path)


def _check_bundle(folder: str) -> None:
    from apex_runtime.fairness.evidence import check_folder

    check_folder(Path(folder))
    why = _unwritable(Path(folder).resolve().parent)
    if why:
        raise UsageError(f"--evidence {folder}: cannot be written ({why}).", "Name another folder.", path=folder)


def _part_of(place: Path, inputs: Sequence[Path]) -> str:
    """A file of an engine that is read; another one may be put beside its files."""
    from apex_runtime.bundle.manifest import is_bundle

    inside = place.is_file() and any(folder in place.parents and is_bundle(folder) for folder in inputs)
    return "it is a part of what is read" if inside else ""


def _why_not(path: Path) -> str:
    """What keeps a file from being written; empty when nothing does."""
    return _unwritable(path.parent) or ("it is a folder" if path.is_dir() else "")


def _unwritable(folder: Path) -> str:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return str(error.strerror)
