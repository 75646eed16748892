"""Which scene, or which part of it, belongs to which split, and whether a split has seen pixels of another.

In order: the rule of the description (areas, or regions of every scene), the folder that a scene lies in, the lists of images in
``annotations/*.json``; a set with none of them is all ``train``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path, PurePosixPath

from apex_runtime.data.findings import Fault, Finding, Findings, Location, shown
from apex_runtime.data.json_lines import JsonFile
from apex_runtime.data.layouts import coco_places, split_name
from apex_runtime.data.satellite.description import Described, SplitRule
from apex_runtime.data.satellite.layout import SceneFile, key_of
from apex_runtime.data.scenes.windows import Window
from apex_runtime.errors import ConfigError, DataError

Shares = tuple[float, float, float, float]  # x0, y0, x1, y1 of width and height
WHOLE: Shares = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Part:
    """A scene, or the region of it that a split may see."""

    scene: SceneFile
    region: Shares = WHOLE

    def pixels(self, height: int, width: int) -> Window:
        """The region in pixels. Regions that share an edge share no pixel."""
        x0, x1 = (round(share * width) for share in (self.region[0], self.region[2]))
        y0, y1 = (round(share * height) for share in (self.region[1], self.region[3]))
        return Window(x0, y0, x1 - x0, y1 - y0)


Splits = dict[str, list[Part]]


def assign(scenes: Sequence[SceneFile], described: Described) -> tuple[Splits, Findings]:
    """The parts of every split that has any, and what is in two splits or in none. Raises ConfigError, DataError."""
    rule = described.options.split
    if rule is not None and rule.regions:
        by_region = {name: [Part(scene, region) for scene in scenes] for name, region in rule.regions.items()}
        return by_region, _crossing(rule, described)
    if rule is not None:
        return _by_area(scenes, rule, described)
    lists = _image_lists(described.root) if any(not scene.split for scene in scenes) else {}
    return _by_place(scenes, lists)


def _by_area(scenes: Sequence[SceneFile], rule: SplitRule, described: Described) -> tuple[Splits, Findings]:
    split_of: dict[str, str] = {}
    findings = []
    for split, areas in rule.areas.items():
        for area in areas:
            if split_of.setdefault(area, split) != split:
                message = f"area {area} is in {split_of[area]} and in {split}; it is read as {split_of[area]}"
                findings.append(Finding(Fault.SPLIT_OVERLAP, Location(described.where), message))
    area_of = {scene: _area(scene, rule.pattern) for scene in scenes}
    nameless = [scene.name for scene, area in area_of.items() if not area]
    if nameless:
        message = f"{described.where}: no area in the names of {len(nameless)} scenes: {shown(nameless)}."
        raise ConfigError(message, "Correct split.pattern; without it the folder is the area.", path=described.where)
    unseen = sorted(set(split_of) - set(area_of.values()))
    if unseen:
        message = f"{described.where}: no scene is of area {shown(unseen)}."
        raise ConfigError(message, f"Areas found: {', '.join(sorted(set(area_of.values())))}.", path=described.where)
    splits: Splits = defaultdict(list)
    for scene, area in area_of.items():
        splits[split_of.get(area, "train")].append(Part(scene))
    return dict(splits), findings


def _area(scene: SceneFile, pattern: str) -> str:
    if not pattern:
        return PurePosixPath(scene.name).parent.as_posix().removeprefix(".")
    found = re.search(pattern, scene.name)
    return (found.group(1) or "") if found else ""


def _by_place(scenes: Sequence[SceneFile], lists: dict[str, set[str]]) -> tuple[Splits, Findings]:
    splits: Splits = defaultdict(list)
    findings = []
    for scene in scenes:
        named = [scene.split] if scene.split else [split for split, keys in lists.items() if scene.key in keys]
        if not named and not lists:
            named = ["train"]
        for split in named:
            splits[split].append(Part(scene))
        if not named:
            message = "in none of the lists of annotations/*.json: not used"
            findings.append(Finding(Fault.UNUSED_FILE, Location(scene.path), message))
    return dict(splits), findings + _twice(splits)


def _twice(splits: Splits) -> Findings:
    """Files that two splits use."""
    splits_of: dict[Path, list[str]] = defaultdict(list)
    for split, parts in splits.items():
        for path in {part.scene.path for part in parts}:
            splits_of[path].append(split)
    return [
        Finding(Fault.SPLIT_OVERLAP, Location(path), f"this image is in {' and in '.join(names)}")
        for path, names in splits_of.items()
        if len({split_name(name) for name in names}) > 1  # instances and panoptic segments of one split share its images
    ]


def _crossing(rule: SplitRule, described: Described) -> Findings:
    where = Location(described.where)
    return [
        Finding(Fault.SPLIT_OVERLAP, where, f"the regions of {a} and {b} intersect")
        for (a, first), (b, second) in combinations(rule.regions.items(), 2)
        if max(first[0], second[0]) < min(first[2], second[2]) and max(first[1], second[1]) < min(first[3], second[3])
    ]


def _image_lists(root: Path) -> dict[str, set[str]]:
    """Keys of the images in each COCO file of the folder. Raises DataError when one is no COCO file."""
    lists = {}
    for split, place in coco_places(root).items():
        try:
            images = JsonFile(place.annotations).values["images"]
            lists[split] = {key_of(str(image["file_name"])) for image in images}
        except (ValueError, KeyError, TypeError) as error:
            message = f"{place.annotations}: no COCO file with a list of images ({error!r})."
            raise DataError(message, "Correct it, or give `split` in satellite.yaml.", path=place.annotations) from error
    return lists
