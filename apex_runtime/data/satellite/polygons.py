"""Scenes with polygons: a GeoJSON per scene, or one for all scenes that know their place on the earth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from apex_runtime.data.dataset import Instances
from apex_runtime.data.findings import Fault, Finding, Findings, Location, shown
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.data.satellite.annotations import PlacedScene, SceneAnnotations
from apex_runtime.data.satellite.description import Described
from apex_runtime.data.satellite.layout import SceneFile, find_geojson, pair_geojson
from apex_runtime.data.satellite.objects import from_masks
from apex_runtime.data.scenes.geojson import Coordinates, GeoPolygon, GeoPolygons, load_polygons, place_polygons
from apex_runtime.data.scenes.georeference import INSTALL, LON_LAT, Georeference, transform
from apex_runtime.data.scenes.polygon import area, clip_part, rasterise
from apex_runtime.data.scenes.scene import has_rasterio, open_scene
from apex_runtime.data.scenes.windows import Window
from apex_runtime.errors import DataError
from apex_runtime.model_info import Category

_MARGIN = 0.05  # of the footprint: its edges are not quite straight in degrees
_WHOLE = 1.0 - 1e-6  # share of a polygon's area in the scene from which it counts as uncut


@dataclass(frozen=True, eq=False)
class _Layer:
    """One GeoJSON file; ``bounds`` [n,4] are x0, y0, x1, y1 of its polygons in its own system."""

    polygons: GeoPolygons
    bounds: np.ndarray


class PolygonAnnotations(SceneAnnotations):
    """Polygons by scene. Every file is read on opening. Raises DataError for what is no GeoJSON, or lies nowhere."""

    def __init__(self, described: Described, scenes: list[SceneFile]) -> None:
        options = described.options
        self._min_piece = options.min_piece
        self._coordinates: Coordinates = options.coordinates
        files = find_geojson(described.root, options.polygons)
        if not files:
            remedy = "Put <scene>.geojson beside the scenes, or one file for all georeferenced scenes."
            raise DataError(f"{described.root}: no GeoJSON found.", remedy, path=described.root)
        self.scenes, self.findings = scenes, []
        self._own, common = pair_geojson(scenes, files)
        self._common = self._shared(common, described)
        self._layers = {path: _layer(path, options.class_property) for path in [*self._own.values(), *self._common]}
        self._readings: dict[Path, Coordinates | None] = {}
        self._told: set[Path] = set()
        for path in self._common:
            self.findings += self._layers[path].polygons.findings
        named = {polygon.class_name for layer in self._layers.values() for polygon in layer.polygons.polygons}
        self.categories = _categories(described, named)
        self._label_of = {category.name: label for label, category in enumerate(self.categories)}

    def check(self, scene: PlacedScene) -> tuple[Findings, bool]:
        """Scenes without polygons, and features of their own file that cannot be read."""
        own = self._own.get(scene.file.key)
        if own is not None:
            lost = [own] if self._reading(own, scene) is None else []
            return self._layers[own].polygons.findings + self._lost(lost), not lost
        if not self._common:
            message = f"no GeoJSON called {scene.file.key}.geojson"
            return [Finding(Fault.MISSING_MASK, Location(scene.file.path), message)], False
        if scene.georeference is None and len(self.scenes) > 1:
            message = "the polygons are common to all scenes, and this one has no place on the earth"
            return [Finding(Fault.MALFORMED, Location(scene.file.path), message)], False
        lost = [path for path in self._common if self._reading(path, scene) is None or self._is_of_one_scene(path)]
        return self._lost(lost), not lost

    def objects(self, scene: PlacedScene) -> tuple[Instances, Findings]:
        """Polygons cut to the scene; pieces that its border cuts off too small are left out."""
        own = self._own.get(scene.file.key)
        masks, labels, findings, slivers = [], [], Findings(), 0
        for path in [own] if own is not None else self._common:
            for polygon in self._placed(path, scene):
                mask, share = _cut(polygon, scene)
                fault = self._fault(polygon, mask, share, own is not None)
                if fault is not None:
                    findings.append(fault)
                elif mask is not None and share < _WHOLE and area(polygon.parts) * share < self._min_piece:
                    slivers += 1
                elif mask is not None:
                    masks.append(mask)
                    labels.append(self._label_of[self._name(polygon)])
        if slivers:
            message = f"{slivers} polygons that the border cuts to under {self._min_piece:g} square pixels were left out"
            findings.append(Finding(Fault.SMALL_PIECES, Location(scene.file.path), message))
        return from_masks(masks, labels, [False] * len(masks)), findings

    def files(self, scenes: Iterable[SceneFile]) -> list[Path]:
        """The GeoJSON files of these scenes."""
        scenes = list(scenes)
        own = [self._own[scene.key] for scene in scenes if scene.key in self._own]
        return own + (self._common if len(own) < len(scenes) else [])

    def _shared(self, common: Sequence[Path], described: Described) -> list[Path]:
        """The files that serve scenes without one of their own. Raises DataError when it is not clear which."""
        if len(self._own) == len(self.scenes):
            self.findings += [Finding(Fault.UNUSED_FILE, Location(path), "polygons without an image") for path in common]
            return []
        if len(common) > 1 and not described.options.polygons:
            names = shown(path.name for path in common)
            message = f"{described.root}: several GeoJSON files are named like no scene: {names}."
            raise DataError(message, "Name those to read: `polygons:` in satellite.yaml.", path=described.root)
        return list(common)

    def _placed(self, path: Path, scene: PlacedScene) -> Iterable[GeoPolygon]:
        layer, reading = self._layers[path], self._reading(path, scene) or "auto"
        near = layer.polygons
        if reading == "geographic" and scene.georeference is not None:
            near = replace(near, polygons=_near(layer, scene.georeference))
        return place_polygons(near, scene.height, scene.width, scene.georeference, reading)

    def _reading(self, path: Path, scene: PlacedScene) -> Coordinates | None:
        """Pixels or places on the earth: decided once per file, by the first scene that its polygons meet in one of the two.

        None where they meet no scene in either.
        """
        if self._coordinates != "auto":
            return self._coordinates
        if path not in self._readings:
            candidates = (scene.file, *(self.scenes if path in self._common else []))
            self._readings[path] = _first_reading(self._layers[path].polygons, candidates)
        return self._readings[path]

    def _is_of_one_scene(self, path: Path) -> bool:
        """Whether a file that several scenes would share has the pixel coordinates of one of them, nobody knows which."""
        several = len(self.scenes) - len(self._own) > 1
        return several and self._coordinates == "auto" and self._readings.get(path) == "pixel"

    def _lost(self, paths: Sequence[Path]) -> Findings:
        """Files whose polygons cannot be placed, each told once."""
        new = [path for path in paths if path not in self._told]
        self._told.update(new)
        hint = "" if has_rasterio() else f", or let GeoTIFF tell their place. {INSTALL}"
        return [Finding(Fault.MALFORMED, Location(path), f"{self._why_lost(path)}: set `coordinates`{hint}") for path in new]

    def _why_lost(self, path: Path) -> str:
        if self._is_of_one_scene(path):
            return "the polygons are in pixels of one scene, and several have no file of their own"
        return "the polygons meet no scene, neither as pixels nor as geographic coordinates, or both ways"

    def _name(self, polygon: GeoPolygon) -> str:
        return polygon.class_name if polygon.class_name is not None else self.categories[0].name

    def _fault(self, polygon: GeoPolygon, mask: RoiMask | None, share: float, own: bool) -> Finding | None:
        """What is wrong with a placed polygon. That it lies outside is a fault only in a file that belongs to one scene."""
        if share == 0.0:
            return Finding(Fault.BOX_OUTSIDE, polygon.where, "this polygon lies outside of its image") if own else None
        if self._name(polygon) not in self._label_of:
            return Finding(Fault.UNKNOWN_CLASS, polygon.where, f"class {polygon.class_name!r} is not listed")
        if mask is None and share >= _WHOLE:
            return Finding(Fault.EMPTY_MASK, polygon.where, "this polygon covers no pixel")
        return None


def _layer(path: Path, class_property: str) -> _Layer:
    polygons = load_polygons(path, class_property)
    outer = [np.concatenate([part[0] for part in polygon.parts]) for polygon in polygons.polygons]
    bounds = [[*points.min(axis=0), *points.max(axis=0)] for points in outer]
    return _Layer(polygons, np.array(bounds, np.float64).reshape(-1, 4))


def _categories(described: Described, named: set[str | None]) -> tuple[Category, ...]:
    """Classes of the description; else the names in the files, sorted; else one class."""
    listed = described.classes().categories
    if not described.options.class_property and len(listed) > 1:
        names = ", ".join(category.name for category in listed)
        message = f"{described.where}: which of the classes {names} a polygon has is not said."
        raise DataError(message, "Name the property that says it: `class_property` in satellite.yaml.", path=described.where)
    found = sorted(name for name in named if name is not None) or ["object"]
    return listed or tuple(Category(id=n, name=name) for n, name in enumerate(found, 1))


def _first_reading(polygons: GeoPolygons, files: Iterable[SceneFile]) -> Coordinates | None:
    if not polygons.polygons:
        return "geographic"
    for file in files:
        with suppress(DataError):  # of this scene alone it cannot be told
            scene = open_scene(file.path)
            placed = place_polygons(polygons, scene.height, scene.width, scene.georeference)
            return "pixel" if placed is polygons.polygons else "geographic"
    return None


def _near(layer: _Layer, georeference: Georeference) -> list[GeoPolygon]:
    """Polygons whose bounds meet those of a scene: a country of roofs is not transformed for every tile of it."""
    corners = transform(georeference.footprint, LON_LAT, layer.polygons.crs)
    low, high = corners.min(axis=0), corners.max(axis=0)
    margin = (high - low) * _MARGIN
    meets = np.all((layer.bounds[:, :2] <= high + margin) & (layer.bounds[:, 2:] >= low - margin), axis=1)
    return [layer.polygons.polygons[n] for n in np.flatnonzero(meets)]


def _cut(polygon: GeoPolygon, scene: PlacedScene) -> tuple[RoiMask | None, float]:
    """The pixels of a polygon in the scene, and the share of its area that lies there."""
    parts = [clipped for part in polygon.parts if (clipped := clip_part(part, scene.height, scene.width))]
    whole = area(polygon.parts)
    # An outline that crosses itself may enclose as much to the left as to the right: no area, and pixels all the same.
    share = area(parts) / whole if whole > 0 else float(bool(parts))
    if share <= 0:
        return None, 0.0
    points = np.concatenate([part[0] for part in parts])
    x0, y0 = np.maximum(np.floor(points.min(axis=0)).astype(int) - 1, 0).tolist()
    x1, y1 = np.minimum(np.ceil(points.max(axis=0)).astype(int) + 1, [scene.width, scene.height]).tolist()
    mask = rasterise(parts, scene.height, scene.width, Window(x0, y0, x1 - x0, y1 - y0))
    return None if mask is None else RoiMask(mask.x + x0, mask.y + y0, mask.bits), share
