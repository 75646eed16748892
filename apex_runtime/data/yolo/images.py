"""The images of a YOLO split: folders with all below them, and list files with one image per line.

Lines of a list file may name any place on the disk: absolute paths are what the common exporters write, and an image is only
read. What a run reports must not depend on the place, so names are relative to the folder of the set when all images lie in it,
and otherwise to the deepest folder that holds them all. The lines are relative to the set's folder or to that of the list file
(``./`` to the latter first); ``#`` begins a comment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from apex_runtime.data.findings import Fault, Finding, Findings, Location
from apex_runtime.data.sources import broken_links, resolve_sources
from apex_runtime.data.yolo.description import YoloDescription, locate
from apex_runtime.errors import DataError, UsageError

MAX_LIST_BYTES = 256_000_000  # two million lines
_LEAST_PARTS = 2  # of a moved path to an image: a bare file name may be that of another image


@dataclass(frozen=True)
class ListedImage:
    """An image that a split names: where it is, its name in the set (forward slashes), and the line or file that names it."""

    path: Path
    name: str
    declared: Location


def split_folders(description: YoloDescription, split: str) -> list[Path]:
    """The folders and list files of a split. Raises UsageError for an unknown split, DataError for what is not there."""
    if split not in description.splits:
        found = ", ".join(description.splits) or "none"
        raise UsageError(f"{description.file}: no split {split!r}.", f"Splits described: {found}.", path=description.file)
    return [_place(description, split, entry) for entry in description.splits[split]]


def listed_images(description: YoloDescription, split: str) -> tuple[list[ListedImage], Findings]:
    """The images of a split sorted by name, each once, and what is wrong with the list. Raises DataError."""
    findings: Findings = []
    first: dict[str, tuple[Path, Location]] = {}
    for path, declared in _declared(description, split, findings):
        key = os.path.abspath(path)
        if key in first:
            again = f"{path.name} is listed again, first by {first[key][1]}"
            findings.append(Finding(Fault.DUPLICATE_IMAGE, declared, again))
        else:
            first[key] = (path, declared)
    base = _base(list(first), description.roots[0])
    images = [ListedImage(path, PurePath(os.path.relpath(key, base)).as_posix(), where) for key, (path, where) in first.items()]
    return sorted(images, key=lambda image: image.name), findings


def _place(description: YoloDescription, split: str, entry: str) -> Path:
    place = locate(entry, description.roots, Path.exists)
    if place is None:
        looked = " and ".join(str(root) for root in description.roots)
        message = f"{description.file}: {split}: {entry!r} not found (looked in {looked})."
        raise DataError(message, "Correct the path, or leave this split out.", path=description.file)
    if entry.startswith(".."):  # Roboflow writes ../train of what lies beside the description
        inside = locate(entry.replace("\\", "/").lstrip("./"), description.roots, Path.exists)
        if inside is not None and not os.path.samefile(inside, place):
            message = f"{description.file}: {split}: {entry!r} could be {place} or {inside}."
            raise DataError(message, "Write path: and the folder of the set, and entries relative to it.", path=description.file)
    return place


def _declared(description: YoloDescription, split: str, findings: Findings) -> Iterator[tuple[Path, Location]]:
    """Every image with what names it; lines whose image is absent become findings."""
    for place in split_folders(description, split):
        if place.is_dir():
            try:
                items = [item for item in resolve_sources(str(place)) if item.path.exists()]
            except UsageError as error:
                raise DataError(f"{description.file}: {split}: {error.message}", error.remedy, path=place) from error
            yield from ((item.path, Location(item.path)) for item in items)
            findings += broken_links(place)
        else:
            yield from _of_list(place, description, findings)


def _of_list(file: Path, description: YoloDescription, findings: Findings) -> Iterator[tuple[Path, Location]]:
    for number, line in enumerate(_text(file).splitlines(), 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        own = entry.startswith(("./", ".\\"))
        roots = (file.parent, *description.roots) if own else (*description.roots, file.parent)
        where = Location(file, number)
        path = locate(entry, roots, Path.is_file, _LEAST_PARTS)
        if path is None:
            findings.append(Finding(Fault.MISSING_IMAGE, where, f"image {entry[:200]!r} not found"))
        else:
            yield path, where


def _text(file: Path) -> str:
    remedy = "A split is a folder, or a text file with one image per line."
    if file.suffix.lower() != ".txt":
        raise DataError(f"{file}: neither a folder nor a list of images (.txt).", remedy, path=file)
    if file.stat().st_size > MAX_LIST_BYTES:
        raise DataError(f"{file}: a list of more than {MAX_LIST_BYTES} bytes.", remedy, path=file)
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text (byte {error.start}).", "Save the list as UTF-8.", path=file) from error


def _base(paths: list[str], root: Path) -> str:
    """What names are relative to; ``paths`` are absolute."""
    home = os.path.abspath(root)
    inside = all(path.startswith(os.path.join(home, "")) for path in paths)
    return home if inside else os.path.commonpath([os.path.dirname(path) for path in paths])
