"""Where the files of a data set lie: what tells one layout from another, and the places that each layout allows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

YOLO_FILES = ("data.yaml", "data.yml", "dataset.yaml")
SATELLITE_FILE = "satellite.yaml"
ROBOFLOW_FILE = "_annotations.coco.json"

_ALIASES = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
# instances_train2017, person_keypoints are not read: the prefix must be one that stands for whole instances or segments
_PREFIXES = ("instances_", "panoptic_", "annotations_", "coco_")
_YEAR = re.compile(r"(?<=[a-z])[_-]?\d{4}$")


class CocoPlace(NamedTuple):
    """One COCO file and the folders in which its images may lie, in the order in which they are tried."""

    annotations: Path
    images: tuple[Path, ...]


def split_name(folder_or_stem: str) -> str:
    """The split that a name stands for: ``valid`` is val, ``instances_train2017`` is train; other names stay as they are."""
    name = folder_or_stem.lower()
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    name = _YEAR.sub("", name)
    name = _ALIASES.get(name, name)
    return name if name in ("train", "val", "test") else folder_or_stem


def coco_places(data: Path) -> dict[str, CocoPlace]:
    """The COCO splits of a folder, or of one annotation file given by itself.

    Known: ``annotations/<split>.json`` with ``images/`` or ``images/<split>/``; ``annotations/instances_<split>2017.json`` with
    ``<split>2017/``; Roboflow's ``<split>/_annotations.coco.json``; a file beside its images. Instances win over panoptic
    segments of the same split, which stay reachable under their full name.
    """
    if data.is_file():
        return {split_name(data.stem): _place(data.parent.parent if data.parent.name == "annotations" else data.parent, data)}
    places: dict[str, CocoPlace] = {}
    files = sorted((data / "annotations").glob("*.json"), key=lambda file: (file.stem.startswith("panoptic"), file.stem))
    for file in files:
        name = split_name(file.stem)
        places.setdefault(name if name not in places else file.stem, _place(data, file))
    for file in sorted(data.glob(f"*/{ROBOFLOW_FILE}")):
        places.setdefault(split_name(file.parent.name), CocoPlace(file, (file.parent, file.parent / "images")))
    return places


def coco_splits(data: Path) -> list[str]:
    """Names of the COCO splits of a folder."""
    return list(coco_places(data))


def _place(data: Path, file: Path) -> CocoPlace:
    stem = file.stem
    for prefix in _PREFIXES:
        stem = stem.removeprefix(prefix)
    images = data / "images"
    return CocoPlace(file, (images, images / stem, images / split_name(stem), data / stem, data / split_name(stem), data))


def yolo_file(data: Path) -> Path | None:
    """The description file of a YOLO set: the file itself, or the one in the folder."""
    if data.is_file():
        return data if data.suffix in (".yaml", ".yml") and data.name != SATELLITE_FILE else None
    return next((data / name for name in YOLO_FILES if (data / name).is_file()), None)


def looks_like_yolo(data: Path) -> str:
    """Why a folder is a YOLO set, or nothing."""
    file = yolo_file(data)
    return f"{file.name} describes a YOLO set" if file is not None else ""


def looks_like_coco(data: Path) -> str:
    """Why a folder is a COCO set, or nothing."""
    if data.is_file() and data.suffix != ".json":
        return ""
    places = coco_places(data)
    if not places:
        return ""
    first = next(iter(places.values())).annotations
    return f"{first.relative_to(data) if data.is_dir() else first.name} is a COCO file" + (
        f", {len(places)} splits" if len(places) > 1 else ""
    )
