"""What a user points at (a file, a folder, a pattern, a list) as files in a stable order: images, or images and clips."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from apex_runtime.data.findings import Fault, Finding, Findings, Location
from apex_runtime.data.image import EXTENSIONS
from apex_runtime.errors import UsageError

LIST = ".txt"
MAX_LIST = 256 << 20  # bytes: some millions of paths


@dataclass(frozen=True)
class Clip:
    """Frames in their order: a video file, or images that the user called the frames of one clip.

    ``name``: relative to what the user pointed at, with forward slashes. ``frames``: how many it says it has. ``fps``: frames
    per second. ``is_file``: a video file.
    """

    name: str
    frames: int
    fps: float
    is_file: bool


@dataclass(frozen=True)
class SourceItem:
    """One image: the file it is in, and its name relative to what the user pointed at, with forward slashes.

    A frame of a clip says which one, counted from 0; ``path`` is then that of the video file, or of the frame's own file.
    """

    path: Path
    relative: str
    clip: Clip | None = None
    frame_index: int = 0


def resolve_sources(source: str, extensions: tuple[str, ...] = EXTENSIONS) -> list[SourceItem]:
    """The files of a file, a folder with all below it, a glob pattern (``**`` allowed) or a list, sorted by relative path.

    A folder gives the files with these extensions, hidden ones left out; a file or a pattern is taken as it is. A list is a
    ``.txt`` file, or ``-`` for standard input, with a path on each line. A path of a list that is not there stays in, and so
    does a link to nothing: it is named when its turn comes. Raises UsageError, naming what was looked for, when there is nothing.
    """
    path = Path(source)
    if source == "-":
        return _of_list(sys.stdin.buffer, "standard input", Path())
    if path.suffix.lower() == LIST and path.is_file():
        with path.open("rb") as lines:
            return _of_list(lines, source, path.parent)
    if path.is_file():
        return [SourceItem(path, path.name)]
    if source and path.is_dir():
        return _of_folder(path, extensions)
    if glob.has_magic(source):
        return _of_pattern(source)
    what = "neither a regular file nor a folder" if source and path.exists() else "no such file or folder"
    raise UsageError(
        f"{source!r}: {what}.",
        "Give an image, a folder of images, a quoted pattern like 'scans/*.png', a .txt list of paths, or - for such a list.",
        path=source,
    )


def broken_links(folder: Path) -> Findings:
    """Links to images that are not there, as a set has them that was copied without the store behind it."""
    links = [file for file in folder.rglob("*") if file.suffix.lower() in EXTENSIONS and file.is_symlink()]
    lost = sorted(file for file in links if not file.exists() and not file.name.startswith("."))
    return [Finding(Fault.MISSING_IMAGE, Location(file), f"a link to {os.readlink(file)}, which is not there") for file in lost]


def _of_folder(folder: Path, extensions: tuple[str, ...]) -> list[SourceItem]:
    found = [file for file in folder.rglob("*") if file.suffix.lower() in extensions and _is_file(file)]
    items = [SourceItem(file, file.relative_to(folder).as_posix()) for file in found]
    visible = [item for item in items if not any(part.startswith(".") for part in Path(item.relative).parts)]
    if not visible:
        kinds = " ".join(extensions)
        what = "images" if extensions == EXTENSIONS else "images or clips"
        raise UsageError(f"{folder}: no {what} in this folder or below it.", f"Looked for {kinds}.", path=folder)
    return sorted(visible, key=lambda item: item.relative)


def _is_file(path: Path) -> bool:
    """Also a link to nothing: it is named when its turn comes, for a set without its store must not look whole."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def _of_list(lines: IO[bytes], name: str, base: Path) -> list[SourceItem]:
    """The paths of a list, the relative ones from ``base``. Blank lines and those that begin with # mean nothing."""
    read = lines.read(MAX_LIST + 1)
    if len(read) > MAX_LIST:
        raise UsageError(f"{name}: a list of more than {MAX_LIST >> 20} MB.", "Cut it into several.", path=name)
    try:
        entries = [line.strip() for line in read.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise UsageError(f"{name}: not a list of paths in UTF-8 ({error}).", "Write one path per line.", path=name) from error
    if any("\0" in entry for entry in entries):
        raise UsageError(f"{name}: not a list of paths (a NUL byte).", "Write one path per line: -print, not -print0.", path=name)
    paths = [Path(os.path.abspath(base / entry)) for entry in entries if entry and not entry.startswith("#")]
    if not paths:
        raise UsageError(f"{name}: no path in this list.", "Write one path per line.", path=name)
    return items_of(paths)


def items_of(paths: Iterable[Path]) -> list[SourceItem]:
    """Absolute paths, each once, named relative to the deepest folder that holds them all."""
    paths = sorted(set(paths))
    common = Path(os.path.commonpath([path.parent for path in paths]))
    return sorted((SourceItem(path, path.relative_to(common).as_posix()) for path in paths), key=lambda item: item.relative)


def _of_pattern(pattern: str) -> list[SourceItem]:
    files = [Path(name) for name in glob.glob(pattern, recursive=True)]
    files = [file for file in files if _is_file(file)]
    if not files:
        raise UsageError(f"{pattern}: no file matches this pattern.", "Quote the pattern and check it with ls.", path=pattern)
    base = _fixed_part(pattern)
    return sorted((SourceItem(file, file.relative_to(base).as_posix()) for file in files), key=lambda item: item.relative)


def _fixed_part(pattern: str) -> Path:
    """The folders of a pattern before the first one with a wildcard: what the relative names are relative to."""
    parts = Path(pattern).parts[:-1]
    fixed = next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return Path(*parts[:fixed])
