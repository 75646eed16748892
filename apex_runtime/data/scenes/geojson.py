"""GeoJSON polygons (RFC 7946) and where they lie in a scene.

Files of imagery tools often hold pixel coordinates, or name another system in the member ``crs`` of the older standard.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from apex_runtime.data.coco.masks import LARGEST
from apex_runtime.data.findings import Fault, Finding, Findings, Location
from apex_runtime.data.json_lines import JsonFile
from apex_runtime.data.scenes.georeference import LON_LAT, Georeference, transform
from apex_runtime.data.scenes.polygon import area, clip_part
from apex_runtime.errors import DataError

Coordinates = Literal["auto", "pixel", "geographic"]

_CODE = re.compile(r"EPSG:(?:[\d.]*:)?(\d+)$", re.IGNORECASE)
_REMEDY = "Export the layer again as GeoJSON polygons."
_OPTION = "Set `coordinates` to pixel or geographic."
_SMALLEST = 1.0  # square pixels; less than this in all is no meeting: degrees read as pixels are specks


@dataclass(frozen=True, eq=False)
class GeoPolygon:
    """One object: ``parts``, each an outer ring and its holes (float64 [n,2] x, y), its class (None: not named), its place."""

    parts: list[list[np.ndarray]]
    class_name: str | None
    where: Location


@dataclass(frozen=True, eq=False)
class GeoPolygons:
    """The polygons of a file in the system ``crs`` (EPSG:4326 unless the file says otherwise), and what was left out of it."""

    path: Path
    crs: str
    polygons: list[GeoPolygon]
    findings: Findings


def load_polygons(path: Path, class_property: str = "") -> GeoPolygons:
    """The polygons of a feature collection, of one feature or of a bare geometry.

    ``class_property`` names the property that gives the class; without it there is one class. A MultiPolygon is one object of
    several parts, and so is a collection of polygons. Raises DataError for what is no GeoJSON; a faulty feature is a finding.
    """
    file = JsonFile(Path(path))
    findings: Findings = []
    polygons = []
    for feature, where, name in _features(file):
        try:
            parts = _parts(feature["geometry"])
            class_name = _class_name(feature.get("properties"), class_property)
        except ValueError as error:
            findings.append(Finding(_fault(str(error)), where, f"{name}: {error}"))
        else:
            polygons.append(GeoPolygon(parts, class_name, where))
    return GeoPolygons(file.path, _crs(file), polygons, findings)


def place_polygons(
    polygons: GeoPolygons, height: int, width: int, georeference: Georeference | None, coordinates: Coordinates = "auto"
) -> list[GeoPolygon]:
    """The same polygons in pixels of a scene, uncut: those far outside of it are still there.

    ``auto``: whichever reading meets the scene; without a georeference that can only be pixels. Raises DataError, which names
    the option, when both do or neither does, and for geographic coordinates without a georeference.
    """
    if coordinates == "pixel" or not polygons.polygons:
        return polygons.polygons
    if georeference is None and coordinates == "auto" and _meets(polygons.polygons, height, width):
        return polygons.polygons
    if georeference is None:
        message = f"{polygons.path}: the scene has no place on the earth, and the polygons do not meet it as pixels."
        remedy = "Use a GeoTIFF with rasterio installed, or tiles named x-y-z; or set `coordinates` to pixel."
        raise DataError(message, remedy, path=polygons.path)
    placed = _to_pixels(polygons, georeference)
    if coordinates == "geographic":
        return placed
    as_pixels, as_world = (_meets(found, height, width) for found in (polygons.polygons, placed))
    if as_pixels == as_world:
        which = "both as pixels and as" if as_pixels else "neither as pixels nor as"
        message = f"{polygons.path}: the polygons meet the scene {which} geographic coordinates."
        raise DataError(message, _OPTION, path=polygons.path)
    return polygons.polygons if as_pixels else placed


def _features(file: JsonFile) -> Iterator[tuple[dict[str, Any], Location, str]]:
    """Every feature, its place and what a message calls it."""
    values, kind = file.values, file.values.get("type")
    if kind == "FeatureCollection" and isinstance(values.get("features"), list):
        for index, entry in enumerate(values["features"]):
            feature = entry if isinstance(entry, dict) else {}
            yield {"geometry": None, **feature}, file.where("features", index), f"feature {index}"
    elif kind == "Feature":
        yield {"geometry": None, **values}, file.where("type"), "the feature"
    elif isinstance(kind, str) and ("coordinates" in values or "geometries" in values):
        yield {"geometry": values}, file.where("type"), "the geometry"
    else:
        raise DataError(f"{file.path}: not GeoJSON: neither features nor a geometry.", _REMEDY, path=file.path)


def _fault(reason: str) -> Fault:
    if reason.startswith("no class"):
        return Fault.UNKNOWN_CLASS
    return Fault.SMALL_PIECES if reason.startswith("no geometry") else Fault.DEGENERATE_POLYGON


def _parts(geometry: Any) -> list[list[np.ndarray]]:
    """The parts of a geometry. Raises ValueError with the reason when it is not made of polygons."""
    if geometry is None:
        raise ValueError("no geometry")
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    inner = geometry.get("geometries" if kind == "GeometryCollection" else "coordinates") if kind else None
    if kind not in ("Polygon", "MultiPolygon", "GeometryCollection") or not isinstance(inner, list) or not inner:
        raise ValueError(f"a geometry of type {str(kind)[:40]!r} with no polygon in it")
    if kind == "Polygon":
        return [_rings(inner)]
    if kind == "MultiPolygon":
        return [_rings(part) for part in inner]
    if any(isinstance(part, dict) and part.get("type") == "GeometryCollection" for part in inner):
        raise ValueError("a collection within a collection")
    return [part for collected in inner for part in _parts(collected)]


def _rings(part: Any) -> list[np.ndarray]:
    if not isinstance(part, list) or not part:
        raise ValueError("a polygon without rings")
    return [_ring(ring) for ring in part]


def _ring(points: Any) -> np.ndarray:
    """Float64 [n,2] without the closing point; heights are dropped."""
    if not isinstance(points, list) or any(not isinstance(point, list) or len(point) < 2 for point in points):
        raise ValueError("a ring that is no list of points")
    pairs = [point[:2] for point in points]
    if any(type(value) not in (int, float) or not -LARGEST < value < LARGEST for pair in pairs for value in pair):
        raise ValueError("a coordinate that is no finite number")
    if len(pairs) > 1 and pairs[0] == pairs[-1]:
        pairs.pop()
    if len(set(map(tuple, pairs))) < 3:
        raise ValueError("a ring of fewer than 3 distinct points")
    return np.array(pairs, np.float64)


def _class_name(properties: Any, class_property: str) -> str | None:
    if not class_property:
        return None
    value = properties.get(class_property) if isinstance(properties, dict) else None
    if type(value) not in (str, int) or value == "":
        raise ValueError(f"no class: the property {class_property!r} is neither text nor an integer")
    return str(value)


def _crs(file: JsonFile) -> str:
    """The system that the member ``crs`` names; longitude and latitude without one. Raises DataError."""
    member = file.values.get("crs")
    if member is None:
        return LON_LAT
    properties = member.get("properties") if isinstance(member, dict) else None
    name = properties.get("name") if isinstance(properties, dict) else None
    if isinstance(name, str) and name.upper().endswith("CRS84"):
        return LON_LAT
    match = _CODE.search(name.replace("::", ":")) if isinstance(name, str) else None
    if match is None:
        message = f"{file.path}: the member crs names no EPSG code or CRS84, but {str(name)[:60]!r}."
        raise DataError(message, "Export in EPSG:4326.", path=file.path)
    return f"EPSG:{match.group(1)}"


def _to_pixels(polygons: GeoPolygons, georeference: Georeference) -> list[GeoPolygon]:
    """In pixels of the scene; all points at once. What is nowhere on the earth becomes infinite and is left out."""
    rings = [ring for polygon in polygons.polygons for part in polygon.parts for ring in part]
    if not rings:
        return []
    points = np.concatenate(rings)
    if polygons.crs == LON_LAT:
        points[(np.abs(points[:, 0]) > 360) | (np.abs(points[:, 1]) >= 90)] = np.nan
    known = np.isfinite(points).all(axis=1)
    points[known] = georeference.from_world(transform(points[known], polygons.crs, georeference.crs))
    moved = iter(np.split(points, np.cumsum([len(ring) for ring in rings])[:-1]))
    placed = [
        GeoPolygon([[next(moved) for _ in part] for part in polygon.parts], polygon.class_name, polygon.where)
        for polygon in polygons.polygons
    ]
    return [polygon for polygon in placed if all(np.isfinite(ring).all() for part in polygon.parts for ring in part)]


def _meets(polygons: Sequence[GeoPolygon], height: int, width: int) -> bool:
    found = 0.0
    for polygon in polygons:
        found += area([clip_part(part, height, width) for part in polygon.parts])
        if found >= _SMALLEST:
            return True
    return False
