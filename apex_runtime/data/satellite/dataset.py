"""Satellite and aerial sets: scenes with mask pictures, GeoJSON polygons, COCO files or boxes, read in windows where large.

Layouts and ``satellite.yaml`` are described in ``layout`` and ``description``. Without a word from the
description, objects are taken from COCO files where there are any, else from GeoJSON, else from box files, else from masks:
polygons keep apart what touches, the regions of a mask cannot.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from apex_runtime.data.dataset import DatasetType, ImageRecord, InstanceDataset, Instances, refuse
from apex_runtime.data.findings import Fault, Finding, Findings, Location
from apex_runtime.data.image import Picture
from apex_runtime.data.layouts import coco_places
from apex_runtime.data.satellite import layout as satellite_layout
from apex_runtime.data.satellite.annotations import MaskAnnotations, PlacedScene, SceneAnnotations
from apex_runtime.data.satellite.boxes import BoxAnnotations
from apex_runtime.data.satellite.coco import CocoAnnotations
from apex_runtime.data.satellite.description import Described, SourceKind, describe, refuse_unread
from apex_runtime.data.satellite.layout import SceneFile
from apex_runtime.data.satellite.leaks import Ground, ground, shared_ground
from apex_runtime.data.satellite.objects import cut
from apex_runtime.data.satellite.splits import Part, assign
from apex_runtime.data.scenes.scene import open_scene
from apex_runtime.data.scenes.windows import Window, windows
from apex_runtime.data.sources import broken_links
from apex_runtime.errors import DataError, ImageError

_KEPT_BYTES = 64_000_000  # mask pixels of decoded scenes that are kept, so that a scene's windows decode it once


@dataclass(frozen=True)
class _View:
    """What one record shows: a window of a scene, or all of it."""

    scene: PlacedScene
    window: Window
    first: bool  # of the windows of its scene

    @property
    def is_whole(self) -> bool:
        return (self.window.height, self.window.width) == (self.scene.height, self.scene.width)


class SatelliteDataset(InstanceDataset):
    """One split of a satellite set; a record per scene, or per window of it (``<scene>@<x>_<y>.<extension>``).

    Raises UsageError for a folder without scenes, ConfigError for a wrong satellite.yaml, DataError for what is in the files.
    """

    kind: DatasetType = "satellite"

    def __init__(self, data: Path, split: str, strict: bool = True) -> None:
        self._described = describe(Path(data))
        self.source, self.split = self._described.where, split
        self.options = self._described.options.model_dump_json(exclude={"path"}, exclude_defaults=True)
        self._annotations = _open_annotations(self._described, split, strict)
        splits, leaks = assign(self._annotations.scenes, self._described)
        if split not in splits:
            message = f"{data}: no split {split!r}. Splits found: {', '.join(splits) or 'none'}."
            raise DataError(message, "Name one of these.", path=data)
        self.categories = self._annotations.categories
        self.findings = [*self._annotations.findings, *leaks]
        self._placed: dict[SceneFile, PlacedScene] = {}
        self._views = self._views_of(splits[split])
        if len(splits) > 1 and any(view.scene.georeference is not None for view in self._views):
            self.findings += shared_ground([one for name, parts in sorted(splits.items()) for one in self._grounds(name, parts)])
        self.records: list[ImageRecord] = [_record(n, view) for n, view in enumerate(self._views, 1)]
        if strict:
            refuse(self.findings, self.source)
        self._decoded: OrderedDict[SceneFile, tuple[Instances, Findings]] = OrderedDict()
        self._kept = 0  # bytes

    def annotation_files(self) -> list[Path]:
        """Masks, GeoJSON, COCO or box files of this split, and the class table."""
        scenes = dict.fromkeys(view.scene.file for view in self._views)
        return [*self._described.files(), *self._annotations.files(scenes)]

    def read(self, index: int) -> Picture:
        """The window of image ``index``; of more than 8 bits it is scaled as its whole scene. Raises ImageError."""
        view = self._views[index]
        return open_scene(view.scene.file.path).read(None if view.is_whole else view.window)

    def decode(self, index: int) -> tuple[Instances, Findings]:
        """The objects of image ``index``, cut to its window; faults of a scene that cost nothing are told at its first window."""
        view = self._views[index]
        found, faults = self._scene_objects(view.scene)
        findings = [fault for fault in faults if view.first or fault.fault.stops_training]
        if view.is_whole:
            return _copied(found), findings
        pieces, dropped = cut(found, view.window, self._described.options.min_piece)
        if dropped:
            message = f"{self.records[index].file_name}: {dropped} pieces at its border were left out as too small"
            findings.append(Finding(Fault.SMALL_PIECES, self.records[index].declared, message))
        return pieces, findings

    def _scene_objects(self, scene: PlacedScene) -> tuple[Instances, Findings]:
        if scene.file not in self._decoded:
            self._decoded[scene.file] = self._annotations.objects(scene)
            self._kept += _bytes(self._decoded[scene.file][0])
            while len(self._decoded) > 1 and self._kept > _KEPT_BYTES:
                _, (oldest, _) = self._decoded.popitem(last=False)
                self._kept -= _bytes(oldest)
        self._decoded.move_to_end(scene.file)
        return self._decoded[scene.file]

    def _views_of(self, parts: Sequence[Part]) -> list[_View]:
        """The windows of all parts whose scene and annotation are sound; the others become findings."""
        views = []
        for part in parts:
            try:
                scene = self._place(part.scene)
            except ImageError as error:
                message = error.message.removeprefix(f"{part.scene.path}: ")
                self.findings.append(Finding(Fault.UNREADABLE_IMAGE, Location(part.scene.path), message))
                continue
            faults, usable = self._annotations.check(scene)
            self.findings += faults
            if usable:
                views += self._windows(scene, part)
        return views

    def _place(self, file: SceneFile) -> PlacedScene:
        """A scene with its size. Raises ImageError."""
        if file not in self._placed:
            scene = open_scene(file.path)
            self._placed[file] = PlacedScene(file, scene.height, scene.width, scene.georeference)
        return self._placed[file]

    def _grounds(self, split: str, parts: Sequence[Part]) -> Iterator[Ground]:
        """Where the scenes of a split lie; those that cannot be read or have no place are passed over."""
        for part in parts:
            with suppress(ImageError):
                scene = self._place(part.scene)
                if scene.georeference is not None:
                    yield ground(split, part.scene, scene.georeference, part.pixels(scene.height, scene.width))

    def _windows(self, scene: PlacedScene, part: Part) -> list[_View]:
        region, options = part.pixels(scene.height, scene.width), self._described.options
        size = options.window_size(region.height, region.width)
        if min(region.width, region.height) == 0:  # a share of a scene of few pixels
            return []
        if size is None:
            return [_View(scene, region, True)]
        tiles = windows(region.height, region.width, size, options.overlap)
        moved = [Window(tile.x + region.x, tile.y + region.y, tile.width, tile.height) for tile in tiles]
        return [_View(scene, window, n == 0) for n, window in enumerate(moved)]


def satellite_splits(data: Path) -> list[str]:
    """Names of the splits of a satellite set. Raises what opening it raises when there is nothing to open."""
    described = describe(Path(data))
    kind = source_kind(described)
    refuse_unread(described, kind)
    if kind == "coco" and described.options.split is None and (places := coco_places(described.root)):
        return list(places)
    scenes = CocoAnnotations(described, "", False).scenes if kind == "coco" else _scenes(described)[0]
    return list(assign(scenes, described)[0])


def source_kind(described: Described) -> SourceKind:
    """What gives the objects: what the description says or names files for, else the first of COCO, GeoJSON, boxes, masks."""
    options, root = described.options, described.root
    if options.source != "auto":
        return options.source
    if options.polygons:
        return "polygons"
    if options.masks:
        return "masks"
    if coco_places(root):
        return "coco"
    if satellite_layout.find_geojson(root, ()):
        return "polygons"
    return "boxes" if any(satellite_layout.find_box_files(root)) else "masks"


def _open_annotations(described: Described, split: str, strict: bool) -> SceneAnnotations:
    kind = source_kind(described)
    refuse_unread(described, kind)
    if kind == "coco":
        return CocoAnnotations(described, split, strict)
    scenes, twins = _scenes(described)
    annotations = _of_files(kind, described, scenes)
    annotations.findings += twins
    return annotations


def _of_files(kind: SourceKind, described: Described, scenes: list[SceneFile]) -> SceneAnnotations:
    if kind == "boxes":
        return BoxAnnotations(described, scenes)
    if kind == "masks":
        return MaskAnnotations(described, scenes)
    from apex_runtime.data.satellite.polygons import PolygonAnnotations

    return PolygonAnnotations(described, scenes)


def _scenes(described: Described) -> tuple[list[SceneFile], Findings]:
    """The images; of two with one name, to which one annotation would belong, the first."""
    scenes = satellite_layout.find_scenes(described.root, described.options.images, described.options.masks)
    if not scenes:
        place = described.options.images or ", ".join(satellite_layout.IMAGE_FOLDERS)
        raise DataError(
            f"{described.root}: no images found.", f"Looked in {place} and in the folder itself.", path=described.root
        )
    by_key: dict[str, SceneFile] = {}
    twins = [scene for scene in scenes if by_key.setdefault(scene.key, scene) is not scene]
    findings = [
        Finding(Fault.DUPLICATE_ID, Location(scene.path), f"{by_key[scene.key].name} has the same name without its extension")
        for scene in twins
    ]
    return list(by_key.values()), findings + broken_links(described.root)


def _record(image_id: int, view: _View) -> ImageRecord:
    file, window = view.scene.file, view.window
    name = PurePosixPath(file.name)
    shown = file.name if view.is_whole else str(name.with_name(f"{name.stem}@{window.x}_{window.y}{name.suffix}"))
    return ImageRecord(image_id, shown, window.width, window.height, file.path, Location(file.path))


def _copied(found: Instances) -> Instances:
    """What the caller may change without changing what is kept here; masks are shared."""
    return Instances(found.boxes.copy(), found.labels.copy(), list(found.masks), found.crowd.copy(), found.areas.copy())


def _bytes(found: Instances) -> int:
    return sum(mask.bits.size for mask in found.masks if mask is not None)
