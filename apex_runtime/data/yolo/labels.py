"""The label files of a YOLO set: one line per object, ``class cx cy w h`` or ``class x1 y1 x2 y2 x3 y3 ...``.

Numbers are fractions of the image's width and height. A file may mix boxes and polygons; an empty one, or none, is an image
without objects. Every line that is wrong is named by file and line; what each fault means is in ``findings.Fault``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import NamedTuple

import numpy as np

from apex_runtime.data.coco.annotations import ROUNDING_PX
from apex_runtime.data.findings import Fault, Finding, Findings, Location
from apex_runtime.data.image import EXTENSIONS

MAX_BYTES = 32_000_000  # of a label file: 10 000 polygons of 200 points
MAX_FAULTS = 1000  # of one file; the rest of it is not read
# Ten images away is no annotation; files in pixels look like this.
FARTHEST = 10.0
_BOX = 4  # numbers of a box
_NOT_LABELS = ("classes.txt", "notes.txt")  # written beside the labels by annotation tools


class LabelledObject(NamedTuple):
    """One line: class index, numbers float64 (cx cy w h, or x y of at least three points), line from 1."""

    label: int
    numbers: np.ndarray
    line: int

    @property
    def is_box(self) -> bool:
        """A box, not a polygon."""
        return len(self.numbers) == _BOX

    def bounds(self) -> tuple[float, float, float, float]:
        """x1, y1, x2, y2 as fractions, not cut to the image."""
        return _bounds(self.numbers.tolist())


@dataclass(frozen=True, eq=False)
class ImageLabels:
    """The n objects of one file, packed, because a set may have a million: int64 [n] but for ``numbers``, float64, those of all.

    ``ends`` says where the numbers of each object end in them.
    """

    labels: np.ndarray
    ends: np.ndarray
    lines: np.ndarray
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[LabelledObject]:
        starts = [0, *self.ends.tolist()][: len(self)]
        for label, start, end, line in zip(self.labels.tolist(), starts, self.ends.tolist(), self.lines.tolist(), strict=True):
            yield LabelledObject(label, self.numbers[start:end], line)


class _LineFault(ValueError):
    """A line that is left out."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


def read_labels(file: Path, classes: int, height: int, width: int) -> tuple[ImageLabels, Findings]:
    """The objects of a label file, and its faults; the set has so many classes, the image is so large in pixels.

    Raises FileNotFoundError, nothing else.
    """
    findings: Findings = []
    labels: list[int] = []
    numbers: list[float] = []
    ends: list[int] = []
    lines: list[int] = []
    for line, text in enumerate(_text(file, findings).splitlines(), 1):
        if not text.strip():
            continue
        try:
            label, values = parse_line(text, classes)
        except _LineFault as error:
            findings.append(Finding(error.fault, Location(file, line), str(error)))
            if len(findings) >= MAX_FAULTS:
                findings.append(Finding(Fault.MALFORMED, Location(file, line), f"{MAX_FAULTS} faults; the rest was not read"))
                break
            continue
        warning = _beyond(values, height, width)
        if warning:
            findings.append(Finding(Fault.BOX_CLIPPED, Location(file, line), warning))
        numbers += values
        labels.append(label)
        ends.append(len(numbers))
        lines.append(line)
    first, last, at = (np.array(values, np.int64) for values in (labels, ends, lines))
    return ImageLabels(first, last, at, np.array(numbers, np.float64)), findings


def parse_line(text: str, classes: int) -> tuple[int, list[float]]:
    """Class index and numbers of one line. Raises ValueError with the fault and the reason."""
    columns = text.split()
    if len(columns) == _BOX + 2:
        reason = "6 columns: a box has 5, and a sixth, if it is a confidence, belongs to predictions"
        raise _LineFault(Fault.MALFORMED, reason)
    if len(columns) <= _BOX or len(columns) % 2 == 0:
        raise _LineFault(Fault.MALFORMED, f"{len(columns)} columns: a box has 5, a polygon 1 + 2 for each of 3 or more points")
    try:
        values = [float(column) for column in columns[1:]]
    except ValueError as error:
        raise _LineFault(Fault.MALFORMED, str(error)[:100]) from error
    label = _label(columns[0], classes)
    _check_numbers(values)
    return label, values


def _label(column: str, classes: int) -> int:
    try:
        value = float(column)
    except ValueError:
        value = math.nan
    if not value.is_integer():  # nor is NaN
        raise _LineFault(Fault.UNKNOWN_CLASS, f"class {column[:40]!r} is not an integer")
    if not 0 <= value < classes:
        raise _LineFault(Fault.UNKNOWN_CLASS, f"class {column[:40]} is not one of 0 to {classes - 1}")
    return int(value)


def _check_numbers(values: list[float]) -> None:
    """Raises _LineFault for what is no box or polygon, or lies outside of the image."""
    if not all(map(math.isfinite, values)):
        raise _LineFault(Fault.INVALID_BOX, "a coordinate is not a finite number")
    if len(values) == _BOX and (values[2] <= 0 or values[3] <= 0):
        raise _LineFault(Fault.INVALID_BOX, f"box of width {values[2]:g} and height {values[3]:g}")
    farthest = max(values, key=abs)
    if abs(farthest) > FARTHEST:
        raise _LineFault(Fault.MALFORMED, f"{farthest:g} is not a fraction of the image; are these pixels?")
    left, top, right, bottom = _bounds(values)
    if right <= 0 or bottom <= 0 or left >= 1 or top >= 1:
        where = f"x {left:g} to {right:g}, y {top:g} to {bottom:g}"
        raise _LineFault(Fault.BOX_OUTSIDE, f"wholly outside of the image ({where})")


def _bounds(values: list[float]) -> tuple[float, float, float, float]:
    if len(values) == _BOX:
        x, y, width, height = values
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])


def _beyond(values: list[float], height: int, width: int) -> str:
    """What to say of an object that reaches beyond the border by more than a rounding, or nothing."""
    left, top, right, bottom = _bounds(values)
    most = max(-left * width, -top * height, (right - 1) * width, (bottom - 1) * height)
    return f"goes {most:.6g} px beyond the {width}x{height} image, cut off" if most > ROUNDING_PX else ""


def _text(file: Path, findings: Findings) -> str:
    """The text of a label file; empty, with a finding, when it cannot be read as text."""
    try:
        state = file.stat()
        if not (S_ISREG(state.st_mode) or S_ISDIR(state.st_mode)):  # to read a pipe would be to wait for ever
            findings.append(Finding(Fault.MALFORMED, Location(file), "no file, but a pipe or a device"))
            return ""
        if state.st_size > MAX_BYTES:
            findings.append(Finding(Fault.MALFORMED, Location(file), f"larger than {MAX_BYTES} bytes, not read"))
            return ""
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        findings.append(Finding(Fault.MALFORMED, Location(file), f"not UTF-8 text (byte {error.start})"))
    except FileNotFoundError:
        raise
    except OSError as error:
        findings.append(Finding(Fault.MALFORMED, Location(file), f"cannot be read ({error.strerror})"))
    return ""


def label_places(image: Path) -> list[Path]:
    """Where the labels of an image may lie, in this order: in ``labels`` in place of the last ``images``, or beside the image."""
    mirrored = _mirrored(image.parent)
    beside = image.with_suffix(".txt")
    return [beside] if mirrored is None else [mirrored / beside.name, beside]


def unused_labels(folders: Iterable[Path]) -> Findings:
    """A warning for every label file below the mirrored folder of these image folders that belongs to no image on the disk."""
    tops = set(folders)
    tops = {folder for folder in tops if not tops.intersection(folder.parents)}
    findings: Findings = []
    for images, labels in ((folder, _mirrored(folder)) for folder in sorted(tops)):
        if labels is not None:
            found = (
                file for file in sorted(labels.rglob("*.txt")) if not _has_image(file, images / file.parent.relative_to(labels))
            )
            findings += [Finding(Fault.UNUSED_FILE, Location(file), "labels without an image") for file in found]
    _image_stems.cache_clear()
    return findings


def _has_image(file: Path, images: Path) -> bool:
    """Whether a text file labels an image in this folder, or is none that labels."""
    return file.stem in _image_stems(images) or file.name in _NOT_LABELS or file.name.startswith(".")


@cache
def _image_stems(folder: Path) -> frozenset[str]:
    found = folder.iterdir() if folder.is_dir() else ()
    return frozenset(file.stem for file in found if file.suffix.lower() in EXTENSIONS)


def _mirrored(folder: Path) -> Path | None:
    """The folder of labels for a folder of images; None when no part of its path is ``images``."""
    parts = list(folder.parts)
    places = [place for place, part in enumerate(parts) if part.lower() == "images"]
    if not places:
        return None
    parts[places[-1]] = {"images": "labels", "IMAGES": "LABELS"}.get(parts[places[-1]], "Labels")
    return Path(*parts)
