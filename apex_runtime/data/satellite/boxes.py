"""Scenes with boxes and no masks: Pascal VOC files, and tables of boxes for the images that have none."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np

from apex_runtime.data.dataset import Instances
from apex_runtime.data.findings import Fault, Finding, Findings, Location, shown
from apex_runtime.data.satellite.annotations import PlacedScene, SceneAnnotations
from apex_runtime.data.satellite.box_files import BoxFault, NamedBox, read_box_table, read_voc
from apex_runtime.data.satellite.description import Described
from apex_runtime.data.satellite.layout import SceneFile, apart_key, find_box_files
from apex_runtime.errors import DataError
from apex_runtime.model_info import Category


class BoxAnnotations(SceneAnnotations):
    """Boxes by scene. All files are read on opening: the classes are the names in them unless the description lists some."""

    def __init__(self, described: Described, scenes: list[SceneFile]) -> None:
        self.findings: Findings = []
        self._files: dict[str, Path] = {}
        self._boxes: dict[str, list[NamedBox]] = {}
        self._sizes: dict[str, tuple[int, int] | None] = {}
        self._faults: dict[str, Findings] = {}
        voc, tables = find_box_files(described.root)
        if not voc and not tables:
            remedy = "Put <name>.xml (Pascal VOC) beside the images, or a CSV with image_path,xmin,ymin,xmax,ymax,label."
            raise DataError(f"{described.root}: no box files found.", remedy, path=described.root)
        # An image that no file knows may have been forgotten or be empty; boxes are never guessed, so it is not used.
        self._read_voc(voc, {scene.key for scene in scenes})
        for table in tables:
            self._read_table(table, {scene.name: scene.key for scene in scenes}, described.root)
        self.scenes = scenes
        listed = described.classes().categories
        names = sorted({box.name for boxes in self._boxes.values() for box in boxes})
        self.categories = listed or tuple(Category(id=n, name=name) for n, name in enumerate(names, 1))
        self._label_of = {category.name: label for label, category in enumerate(self.categories)}

    def check(self, scene: PlacedScene) -> tuple[Findings, bool]:
        """Scenes without a file, files that cannot be read, entries that are no boxes, unknown classes and other sizes."""
        key = scene.file.key
        if key not in self._files:
            return [Finding(Fault.MISSING_MASK, Location(scene.file.path), "no box file or table names this image")], False
        path = self._files[key]
        found = list(self._faults.get(key, []))
        for box in self._boxes.get(key, []):
            if box.name not in self._label_of:
                found.append(Finding(Fault.UNKNOWN_CLASS, Location(path, box.line), f"class {box.name!r} is not listed"))
        width, height = self._sizes.get(key) or (scene.width, scene.height)
        if (width, height) == (scene.width, scene.height):
            return found, key in self._boxes
        message = f"the file says {width}x{height}, the image is {scene.width}x{scene.height}"
        return [*found, Finding(Fault.SIZE_MISMATCH, Location(path), message)], False

    def objects(self, scene: PlacedScene) -> tuple[Instances, Findings]:
        """Boxes cut to the image; without masks."""
        key, findings, kept = scene.file.key, Findings(), []
        for box in self._boxes.get(key, []):
            x1, y1, x2, y2 = box.box
            cut = max(x1, 0.0), max(y1, 0.0), min(x2, float(scene.width)), min(y2, float(scene.height))
            where = Location(self._files[key], box.line)
            if cut[2] <= cut[0] or cut[3] <= cut[1]:
                findings.append(Finding(Fault.BOX_OUTSIDE, where, f"box {box.box} lies outside of the image"))
            elif box.name in self._label_of:
                kept.append((cut, box))
                if cut != box.box:
                    findings.append(Finding(Fault.BOX_CLIPPED, where, f"box {box.box} was cut to the image"))
        boxes = np.array([cut for cut, _ in kept], np.float32).reshape(-1, 4)
        return Instances(
            boxes=boxes,
            labels=np.array([self._label_of[box.name] for _, box in kept], np.int64),
            masks=[None] * len(kept),
            crowd=np.array([box.ignore for _, box in kept], bool),
            areas=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
        ), findings

    def files(self, scenes: Iterable[SceneFile]) -> list[Path]:
        """The box files and tables of these scenes."""
        return sorted({self._files[scene.key] for scene in scenes if scene.key in self._files})

    def _read_voc(self, files: dict[str, Path], known: set[str]) -> None:
        for key, path in files.items():
            if key not in known:
                self.findings.append(Finding(Fault.UNUSED_FILE, Location(path), "boxes of an image that is not there"))
                continue
            self._files[key] = path
            try:
                voc = read_voc(path)
            except (ValueError, OSError) as error:
                self._faults[key] = [Finding(Fault.MALFORMED, Location(path), str(error))]
                continue
            self._boxes[key], self._sizes[key] = list(voc.boxes), voc.size
            self._faults[key] = [_finding(path, fault) for fault in voc.faults]

    def _read_table(self, path: Path, key_of_name: dict[str, str], root: Path) -> None:
        try:
            table = read_box_table(path)
        except (ValueError, OSError) as error:
            self.findings.append(Finding(Fault.MALFORMED, Location(path), str(error)))
            return
        self.findings += [_finding(path, fault) for fault in table.faults]
        meant = _Meant(key_of_name)
        for name, boxes in table.boxes.items():
            key, others = meant.scene(name)
            if key is None:
                reason = f"fits several images: {shown(others)}" if others else f"is not under {root}"
                self.findings.append(Finding(Fault.MISSING_IMAGE, Location(path, table.lines[name]), f"{name} {reason}"))
            elif key in self._files and self._files[key].suffix.lower() == ".xml":
                message = f"boxes of {name} are not read: {self._files[key].name} has them, too"
                self.findings.append(Finding(Fault.UNUSED_FILE, Location(path), message))
            else:
                self._files[key] = path
                self._boxes.setdefault(key, []).extend(boxes)


class _Meant:
    """Which scene a table means. Tables are moved and their paths are not; a guess must not give boxes to another image."""

    def __init__(self, key_of_name: dict[str, str]) -> None:
        self._key_of_name = key_of_name
        self._keys = set(key_of_name.values())
        self._by_stem: dict[str, list[str]] = {}
        for name, key in key_of_name.items():
            self._by_stem.setdefault(PurePosixPath(name).stem, []).append(key)

    def scene(self, name: str) -> tuple[str | None, list[str]]:
        """The key of the scene called like this, else of the only one whose stem it has; None and those that it may be."""
        key = self._key_of_name.get(name) or apart_key(name)
        if key in self._keys:
            return key, []
        others = self._by_stem.get(PurePosixPath(name).stem, [])
        if len(others) != 1:
            return None, others
        ends = f"/{key}", f"/{others[0]}"
        return (others[0], []) if ends[0].endswith(ends[1]) or ends[1].endswith(ends[0]) else (None, [])


def _finding(path: Path, fault: BoxFault) -> Finding:
    return Finding(fault.fault, Location(path, fault.line), fault.message)
