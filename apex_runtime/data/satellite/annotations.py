"""What says where the objects of a scene are: mask pictures, polygons, COCO files or boxes, behind one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apex_runtime.data.dataset import Instances
from apex_runtime.data.findings import Fault, Finding, Findings, Location, shown
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.data.satellite import layout as satellite_layout
from apex_runtime.data.satellite.colour_table import Code, ColourTable, build_table, show_code
from apex_runtime.data.satellite.components import components, whole
from apex_runtime.data.satellite.description import Described
from apex_runtime.data.satellite.layout import SceneFile
from apex_runtime.data.satellite.mask_classes import infer_table
from apex_runtime.data.satellite.mask_picture import decode_mask, mask_size
from apex_runtime.data.satellite.objects import from_masks
from apex_runtime.data.scenes.georeference import Georeference
from apex_runtime.errors import DataError
from apex_runtime.model_info import Category


@dataclass(frozen=True)
class PlacedScene:
    """A scene with its size in pixels and, where it has one, its place on the earth."""

    file: SceneFile
    height: int
    width: int
    georeference: Georeference | None


class SceneAnnotations(ABC):
    """The objects of a set of scenes. ``findings`` concern the set as a whole."""

    categories: tuple[Category, ...]
    scenes: list[SceneFile]
    findings: Findings

    @abstractmethod
    def check(self, scene: PlacedScene) -> tuple[Findings, bool]:
        """What is wrong with the annotation of one scene, without decoding it, and whether it can be used all the same."""

    @abstractmethod
    def objects(self, scene: PlacedScene) -> tuple[Instances, Findings]:
        """All objects of one scene, and the faults met on decoding them."""

    @abstractmethod
    def files(self, scenes: Iterable[SceneFile]) -> list[Path]:
        """The files that annotate some scenes, each once, in a stable order."""


class MaskAnnotations(SceneAnnotations):
    """Connected regions of one mask picture per scene. Raises DataError when its colours cannot be understood."""

    def __init__(self, described: Described, scenes: list[SceneFile]) -> None:
        options = described.options
        self._min_area, self._connectivity = options.min_area, options.connectivity
        self.scenes = scenes
        masks = satellite_layout.find_masks(described.root, options.masks)
        if not masks:
            places = options.masks or ", ".join(satellite_layout.MASK_FOLDERS)
            raise DataError(f"{described.root}: no mask pictures found.", f"Looked in {places}.", path=described.root)
        self._masks, self.findings = satellite_layout.pair_masks(scenes, masks)
        self._table = _table(described, list(self._masks.values()))
        self.categories = self._table.categories

    def check(self, scene: PlacedScene) -> tuple[Findings, bool]:
        """Missing masks, and sizes that differ from the image's."""
        path = self._masks.get(scene.file.key)
        if path is None:
            message = f"no mask called {scene.file.key}.* or {scene.file.key}_mask.*"
            return [Finding(Fault.MISSING_MASK, Location(scene.file.path), message)], False
        try:
            height, width = mask_size(path)
        except (ValueError, OSError) as error:
            return [Finding(Fault.MALFORMED, Location(path), str(error))], False
        if (height, width) == (scene.height, scene.width):
            return [], True
        message = f"the mask is {width}x{height}, its image {scene.width}x{scene.height}"
        return [Finding(Fault.SIZE_MISMATCH, Location(path), message)], False

    def objects(self, scene: PlacedScene) -> tuple[Instances, Findings]:
        """Regions per class, in the order of the classes; ignore regions are one crowd of every class."""
        path = self._masks[scene.file.key]
        try:
            picture = decode_mask(path)
            unknown = self._table.unknown(picture)
            regions = [(label, *self._components(pixels)) for label, pixels in self._table.class_masks(picture)]
        except (ValueError, OSError) as error:
            return from_masks([], [], []), [Finding(Fault.MALFORMED, Location(path), str(error))]
        ignored = whole(self._table.region_mask(picture))
        masks = [mask for _, found, _ in regions for mask in found]
        labels = [label for label, found, _ in regions for _ in found]
        crowds = [] if ignored is None else [(ignored, label) for label in range(len(self.categories))]
        instances = from_masks(
            masks + [mask for mask, _ in crowds],
            labels + [label for _, label in crowds],
            [False] * len(masks) + [True] * len(crowds),
        )
        return instances, self._faults(path, unknown, sum(specks for *_, specks in regions))

    def files(self, scenes: Iterable[SceneFile]) -> list[Path]:
        """The masks."""
        return [self._masks[scene.key] for scene in scenes if scene.key in self._masks]

    def _components(self, pixels: np.ndarray) -> tuple[list[RoiMask], int]:
        return components(pixels, self._min_area, self._connectivity)

    def _faults(self, path: Path, unknown: list[tuple[Code, int]], specks: int) -> Findings:
        findings = []
        if unknown:
            colours = shown(f"{show_code(code)} ({count} pixels)" for code, count in unknown)
            findings.append(Finding(Fault.MALFORMED, Location(path), f"colours that the class table does not list: {colours}"))
        if specks:
            message = f"{specks} regions under {self._min_area} pixels were left out"
            findings.append(Finding(Fault.SMALL_PIECES, Location(path), message))
        return findings


def _table(described: Described, masks: list[Path]) -> ColourTable:
    classes, options = described.classes(), described.options
    if not classes.classes and not classes.ignore:
        return infer_table(masks)
    return build_table(classes, options.ignore_regions, options.colour_tolerance, described.classes_file or described.where)
