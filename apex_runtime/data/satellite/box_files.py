"""Boxes without masks: Pascal VOC files beside the images, and tables as DeepForest writes them.

Coordinates are read as they stand: pixels from 0, ``xmax`` and ``ymax`` are the far edges of the box.

* Pascal VOC: ``<annotation>`` with ``<object><name/><bndbox><xmin/><ymin/><xmax/><ymax/></bndbox></object>`` per box;
  ``<difficult>1</difficult>`` makes a box an ignore region, as in the challenge.
* CSV: a header with ``image_path,xmin,ymin,xmax,ymax,label`` in any order, a row per box; a row without numbers is an image
  without boxes.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree
from xml.parsers import expat

from apex_runtime.data.findings import Fault

VOC_FOLDERS = ("annotations", "labels", "xml")  # upper or lower case

_MAX_BYTES = 50_000_000
_COLUMNS = ("image_path", "xmin", "ymin", "xmax", "ymax", "label")
_SIDES = _COLUMNS[1:5]
_HEAD = 2_000  # bytes that show what a file is


@dataclass(frozen=True)
class NamedBox:
    """One box: x1, y1, x2, y2 in pixels, the name of its class, the line that gave it, and whether it is to be ignored."""

    box: tuple[float, float, float, float]
    name: str
    line: int | None = None
    ignore: bool = False


@dataclass(frozen=True)
class BoxFault:
    """An entry that cannot be read."""

    line: int | None
    message: str
    fault: Fault = Fault.MALFORMED


class _InvalidBoxError(ValueError):
    """Four numbers that are no box."""


@dataclass(frozen=True)
class VocFile:
    """A Pascal VOC file: the image it names, width and height (None where it does not say), its boxes and its faulty entries."""

    file_name: str
    size: tuple[int, int] | None
    boxes: tuple[NamedBox, ...]
    faults: tuple[BoxFault, ...]


@dataclass(frozen=True)
class BoxTable:
    """A CSV of boxes: those of each image by file name, the line that names it first, and its faulty rows."""

    boxes: dict[str, list[NamedBox]]
    lines: dict[str, int]
    faults: tuple[BoxFault, ...]


def is_voc(path: Path) -> bool:
    """Whether a file begins like Pascal VOC."""
    return path.suffix.lower() == ".xml" and b"<annotation" in _head(path)


def is_box_table(path: Path) -> bool:
    """Whether a file is a CSV with the columns of a table of boxes."""
    if path.suffix.lower() != ".csv":
        return False
    header = _head(path).decode("utf-8-sig", "replace").splitlines()[:1]
    return bool(header) and set(_COLUMNS) <= {name.strip() for name in next(csv.reader(header), [])}


def read_voc(path: Path) -> VocFile:
    """A Pascal VOC file. Raises ValueError when it is not one; files with a DTD or entities are refused."""
    data = _read(path)
    # Entities are how a small file becomes gigabytes, or reads other files; VOC has no use for them.
    if re.search(rb"<!\s*(DOCTYPE|ENTITY)", data, re.IGNORECASE) or b"\0" in data:
        raise ValueError("it declares a document type or entities, or is not UTF-8: not read for safety")
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, LookupError) as error:  # LookupError: an encoding that nobody knows
        raise ValueError(f"not valid XML ({error})") from error
    if root.tag != "annotation":
        raise ValueError(f"its root is <{root.tag}>, not <annotation>")
    boxes, faults = [], []
    for place, (line, element) in enumerate(zip(_object_lines(data), root.iterfind("object"), strict=True), 1):
        try:
            boxes.append(_voc_box(element, line))
        except ValueError as error:
            faults.append(BoxFault(line, f"object {place}: {error}", _kind(error)))
    return VocFile((root.findtext("filename") or "").strip(), _voc_size(root), tuple(boxes), tuple(faults))


def _object_lines(data: bytes) -> list[int]:
    """The line on which each <object> of a sound file begins; ElementTree does not tell."""
    lines: list[int] = []
    parser, path = expat.ParserCreate(None, "}"), []  # names as ElementTree has them

    def start(name: str, _: dict[str, str]) -> None:
        path.append(name)
        if path[1:] == ["object"]:
            lines.append(parser.CurrentLineNumber)

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: path.pop()
    parser.Parse(data, True)
    return lines


def _voc_box(element: ElementTree.Element, line: int) -> NamedBox:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise ValueError("no <name>")
    box = _box([element.findtext(f"bndbox/{side}") for side in _SIDES])
    return NamedBox(box, name, line, (element.findtext("difficult") or "0").strip() == "1")


def _voc_size(root: ElementTree.Element) -> tuple[int, int] | None:
    sides = [root.findtext(f"size/{side}") for side in ("width", "height")]
    try:
        width, height = (int(side or 0) for side in sides)
    except ValueError:
        return None
    return (width, height) if width > 0 and height > 0 else None


def read_box_table(path: Path) -> BoxTable:
    """A CSV of boxes. Raises ValueError when it has not the columns."""
    text = _read(path).decode("utf-8-sig")
    try:
        rows = list(_rows(csv.DictReader(io.StringIO(text), skipinitialspace=True)))
    except csv.Error as error:
        raise ValueError(f"not readable as CSV ({error})") from error
    boxes: dict[str, list[NamedBox]] = {}
    lines: dict[str, int] = {}
    faults = []
    for line, row in rows:
        try:
            name = _safe_name(row["image_path"])
            found = boxes.setdefault(name, [])
            lines.setdefault(name, line)
            if any(row[side] for side in _SIDES):
                found.append(NamedBox(_box([row[side] for side in _SIDES]), _label(row["label"]), line))
        except ValueError as error:
            faults.append(BoxFault(line, str(error), _kind(error)))
    return BoxTable(boxes, lines, tuple(faults))


def _rows(reader: csv.DictReader[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and columns of every row. Raises ValueError when the header lacks some."""
    reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
    if not set(_COLUMNS) <= set(reader.fieldnames):
        raise ValueError(f"no header with {','.join(_COLUMNS)}")
    for row in reader:
        yield reader.line_num, {name: (row.get(name) or "").strip() for name in _COLUMNS}


def _label(text: str) -> str:
    if not text:
        raise ValueError("no label")
    return text


def _safe_name(text: str) -> str:
    name = PurePosixPath(text.replace("\\", "/"))
    if not name.name or name.is_absolute() or ".." in name.parts:
        raise ValueError(f"image_path {text!r} is no path within the folder")
    return name.as_posix()


def _box(texts: list[str | None]) -> tuple[float, float, float, float]:
    try:
        x1, y1, x2, y2 = (float(text or "") for text in texts)
    except ValueError as error:
        raise ValueError(f"box {texts} is not four numbers") from error
    if not all(map(math.isfinite, (x1, y1, x2, y2))) or x2 <= x1 or y2 <= y1:
        raise _InvalidBoxError(f"box {texts} has no positive size")
    return x1, y1, x2, y2


def _kind(error: ValueError) -> Fault:
    return Fault.INVALID_BOX if isinstance(error, _InvalidBoxError) else Fault.MALFORMED


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)


def _read(path: Path) -> bytes:
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"more than {_MAX_BYTES // 1_000_000} MB")
    return path.read_bytes()
