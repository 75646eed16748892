"""Regions of images as a user names them: ``X,Y,W,H`` of every image, or a file of them.

A file is JSON, ``{"image.png": [[x, y, w, h], ...]}`` by the names of the images relative to the source, or GeoJSON with
polygons: in longitude and latitude (or the system it names) for images that know their place on the earth, in pixels for others.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from apex_runtime.data.scenes.geojson import GeoPolygon, GeoPolygons, load_polygons, place_polygons
from apex_runtime.data.scenes.scene import open_scene
from apex_runtime.errors import DataError, UsageError

MAX_BYTES = 64 << 20
_BOX = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*,\s*(-?\d+(?:\.\d+)?)\s*,\s*(\d+(?:\.\d+)?)\s*,\s*(\d+(?:\.\d+)?)\s*")
_FORMS = 'Give X,Y,W,H in pixels, a JSON file {"image.png": [[x, y, w, h]]}, or a GeoJSON file.'

Rings = list[np.ndarray]


@dataclass(frozen=True, eq=False)
class Regions:
    """``asked``: as the user wrote it, a file by its name and SHA-256. ``everywhere``: of all images; ``by_name``: of single
    ones; ``polygons``: of GeoJSON files."""

    asked: list[str] = field(default_factory=list)
    everywhere: list[Rings] = field(default_factory=list)
    by_name: dict[str, list[Rings]] = field(default_factory=dict)
    polygons: list[GeoPolygons] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.asked)

    def of(self, name: str, path: Path | None) -> list[Rings]:
        """The regions of an image, each a list of rings float64 [n,2] in its pixels; ``path`` None: it has no place on the earth.

        Raises ImageError, DataError.
        """
        found = [*self.everywhere, *self.by_name.get(name, ())]
        for polygons in self.polygons:
            found += [part for polygon in _placed(polygons, path) for part in polygon.parts]
        return found

    def check_names(self, names: Collection[str], option: str) -> None:
        """Raises UsageError for a name that no image has: a slip would be silent otherwise."""
        unknown = sorted(set(self.by_name) - set(names))
        if unknown:
            raise UsageError(f"{option}: {unknown[0]!r} is not among the images.", "Names are relative to the source.")


def check_regions(names: Collection[str], look: Regions, ignore: Regions) -> None:
    """``check_names`` of ``--look`` and ``--ignore``. Raises UsageError."""
    look.check_names(names, "--look")
    ignore.check_names(names, "--ignore")


def _placed(polygons: GeoPolygons, path: Path | None) -> list[GeoPolygon]:
    scene = None if path is None else open_scene(path)
    if scene is None or scene.georeference is None:
        return polygons.polygons
    return place_polygons(polygons, scene.height, scene.width, scene.georeference, "geographic")


def parse_regions(values: Sequence[str], option: str) -> Regions:
    """What was given for ``--look`` or ``--ignore``. Raises UsageError."""
    regions = Regions()
    for value in values:
        match = _BOX.fullmatch(value)
        if match:
            regions.asked.append(value)
            regions.everywhere.append(_box([float(part) for part in match.groups()], option, value))
        elif Path(value).is_file():
            _read(Path(value), regions, option)
        else:
            raise UsageError(f"{option} {value}: neither a region nor a file.", _FORMS)
    return regions


def _box(xywh: Sequence[float], option: str, where: str) -> Rings:
    x, y, width, height = xywh
    if width <= 0 or height <= 0:
        raise UsageError(f"{option} {where}: a region has a width and a height above 0.", _FORMS)
    return [np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]], np.float64)]


def _read(path: Path, regions: Regions, option: str) -> None:
    if path.stat().st_size > MAX_BYTES:
        raise UsageError(f"{option} {path}: larger than {MAX_BYTES >> 20} MB.", _FORMS, path=path)
    try:
        content = path.read_bytes()
        document = json.loads(content.decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{option} {path}: not a JSON file ({error}).", _FORMS, path=path) from error
    regions.asked.append(f"{path.name} sha256:{hashlib.sha256(content).hexdigest()}")
    if isinstance(document, dict) and isinstance(document.get("type"), str):
        regions.polygons.append(_polygons(path, option))
        return
    if not isinstance(document, dict):
        raise UsageError(f"{option} {path}: expected an object.", _FORMS, path=path)
    for name, boxes in document.items():
        if not isinstance(boxes, list) or not all(_is_box(row) for row in boxes):
            raise UsageError(f"{option} {path}: the regions of {name!r} are not [x, y, w, h].", _FORMS, path=path)
        regions.by_name.setdefault(name, []).extend(_box(row, option, f"{path}: {name!r}") for row in boxes)


def _polygons(path: Path, option: str) -> GeoPolygons:
    try:
        polygons = load_polygons(path)
    except DataError as error:
        raise UsageError(f"{option} {error.message}", error.remedy, path=path) from error
    if polygons.findings:
        first = polygons.findings[0]
        raise UsageError(f"{option} {first.where}: {first.message}.", "Mend or remove this feature.", path=path)
    return polygons


def _is_box(row: object) -> bool:
    return isinstance(row, list) and len(row) == 4 and all(_is_number(value) for value in row)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9
