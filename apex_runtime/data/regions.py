"""Regions of images as a user names them: ``X,Y,W,H`` of every image, or a file of them.

A file is JSON, ``{"image.png": [[x, y, w, h], ...]}`` by the names of the images relative to the source, or GeoJSON with
polygons: in longitude and latitude (or the system it names) for images that know their place on the earth, in pixels for others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from apex_runtime.data.scenes.geojson import GeoPolygons, load_polygons, place_polygons
from apex_runtime.data.scenes.scene import open_scene
from apex_runtime.errors import UsageError

MAX_BYTES = 64 << 20
_BOX = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*,\s*(-?\d+(?:\.\d+)?)\s*,\s*(\d+(?:\.\d+)?)\s*,\s*(\d+(?:\.\d+)?)\s*")
_FORMS = 'Give X,Y,W,H in pixels, a JSON file {"image.png": [[x, y, w, h]]}, or a GeoJSON file.'

Rings = list[np.ndarray]


@dataclass(frozen=True, eq=False)
class Regions:
    """``everywhere``: of all images; ``by_name``: of single ones; ``on_earth``: polygons of files."""

    asked: tuple[str, ...] = ()
    everywhere: list[Rings] = field(default_factory=list)
    by_name: dict[str, list[Rings]] = field(default_factory=dict)
    on_earth: list[GeoPolygons] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.asked)

    def of(self, name: str, path: Path | None) -> list[Rings]:
        """The regions of an image, each a list of rings float64 [n,2] in its pixels; ``path`` None: it has no place on the earth.

        Raises ImageError, DataError.
        """
        found = [*self.everywhere, *self.by_name.get(name, ())]
        if not self.on_earth or path is None:
            return found
        scene = open_scene(path)
        how: Any = "pixel" if scene.georeference is None else "geographic"
        for polygons in self.on_earth:
            placed = place_polygons(polygons, scene.height, scene.width, scene.georeference, how)
            found += [part for polygon in placed for part in polygon.parts]
        return found

    def check_names(self, names: Collection[str], option: str) -> None:
        """Raises UsageError for a name that no image has: a slip would be silent otherwise."""
        unknown = sorted(set(self.by_name) - set(names))
        if unknown:
            raise UsageError(f"{option}: {unknown[0]!r} is not among the images.", "Names are relative to the source.")


def parse_regions(values: Sequence[str], option: str) -> Regions:
    """What was given for ``--look`` or ``--ignore``. Raises UsageError, DataError."""
    regions = Regions(tuple(values))
    for value in values:
        match = _BOX.fullmatch(value)
        if match:
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
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{option} {path}: not a JSON file ({error}).", _FORMS, path=path) from error
    if isinstance(document, dict) and isinstance(document.get("type"), str):
        regions.on_earth.append(_polygons(path, option))
        return
    if not isinstance(document, dict):
        raise UsageError(f"{option} {path}: expected an object.", _FORMS, path=path)
    for name, boxes in document.items():
        if not isinstance(boxes, list) or not all(_is_box(row) for row in boxes):
            raise UsageError(f"{option} {path}: the regions of {name!r} are not [x, y, w, h].", _FORMS, path=path)
        regions.by_name.setdefault(name, []).extend(_box(row, option, f"{path}: {name!r}") for row in boxes)


def _polygons(path: Path, option: str) -> GeoPolygons:
    polygons = load_polygons(path)
    if polygons.findings:
        first = polygons.findings[0]
        raise UsageError(f"{option} {first.where}: {first.message}.", "Mend or remove this feature.", path=path)
    return polygons


def _is_box(row: object) -> bool:
    return isinstance(row, list) and len(row) == 4 and all(_is_number(value) for value in row)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9
