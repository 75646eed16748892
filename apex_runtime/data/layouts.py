"""Where the files of a data set lie: what tells one layout from another, and the places that each layout allows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

YOLO_FILES = ("data.yaml", "data.yml", "dataset.yaml")
SATELLITE_FILE = "satellite.yaml"
# What tools call the one file beside its images, in the order in which they are tried. The last two, of Label Studio and
# FiftyOne, are names that anything may have: there the content must agree.
COCO_FILES = ("_annotations.coco.json", "annotations.json", "coco.json", "instances_default.json")
_NAMELESS = (*COCO_FILES, "result.json", "labels.json")

_ALIASES = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
# prefixes that stand for instances or segments, and those of COCO's other tasks, which are no splits
_PREFIXES = ("instances_", "panoptic_", "annotations_", "coco_")
_OTHER_TASKS = ("captions_", "person_keypoints_", "stuff_", "image_info_")
_YEAR = re.compile(r"(?<=[a-z])[_-]?\d{4}$")
_SPLITS = ("train", "val", "test")
_PEEK = 1 << 20  # bytes at either end of a JSON file in which the names of COCO's lists are looked for


class CocoPlace(NamedTuple):
    """One COCO file and the folders in which its images may lie, in the order in which they are tried."""

    annotations: Path
    images: tuple[Path, ...]


def split_name(folder_or_stem: str) -> str:
    """The split that a name stands for: ``valid`` is val, ``instances_train2017`` is train; other names stay as they are."""
    name = _YEAR.sub("", _without_prefix(folder_or_stem.lower()))
    name = _ALIASES.get(name, name)
    return name if name in _SPLITS else folder_or_stem


def coco_places(data: Path) -> dict[str, CocoPlace]:
    """The COCO splits of a folder, or of one annotation file given by itself.

    Known: ``annotations/<split>.json`` with ``images/`` or ``images/<split>/``; ``annotations/instances_<split>2017.json`` with
    ``<split>2017/``; Roboflow's ``<split>/_annotations.coco.json``; ``<split>.json``, ``annotations.json`` or ``coco.json``
    beside the images or ``images/``; ``labels.json`` beside ``data/``. Instances win over panoptic segments of the same split,
    which stay reachable under their full name. One file alone whose name says no split is train.
    """
    if data.is_file():
        return _named([_place(_root_of(data), data)])
    files = [file for file in sorted((data / "annotations").glob("*.json"), key=_instances_first) if looks_like_coco_file(file)]
    places = [_place(data, file) for file in files]
    if not places:
        places = [place for folder in sorted(data.glob("*/")) if _is_split(folder.name) for place in _beside(folder)]
    return _named(places or _beside(data))


def _named(places: list[CocoPlace]) -> dict[str, CocoPlace]:
    named: dict[str, CocoPlace] = {}
    for place in places:
        file = place.annotations
        own = split_name(file.parent.name if file.name in _NAMELESS else file.stem)
        name = own if _is_split(own) or len(places) > 1 else "train"
        named.setdefault(name if name not in named else file.stem, place)
    return named


def _beside(folder: Path) -> list[CocoPlace]:
    """Files that lie with their images: one of the usual names, or one per split."""
    usual = next((folder / name for name in _NAMELESS if looks_like_coco_file(folder / name)), None)
    if usual is not None:
        return [_place(folder, usual)]
    files = (file for file in sorted(folder.glob("*.json"), key=_instances_first) if _is_split(file.stem))
    return [_place(folder, file) for file in files if looks_like_coco_file(file)]


def looks_like_coco_file(file: Path) -> bool:
    """Whether a JSON file claims to hold instances or segments: by its name, or by a megabyte at either end.

    A name that says a split is believed, so that a broken file is an error and not a split that is missing. Captions, results
    and lists of classes have not all of the lists images, annotations and categories; in a large file these may stand where
    nobody looks, there an opening brace will do.
    """
    if file.suffix.lower() != ".json" or file.name.lower().startswith(_OTHER_TASKS) or not file.is_file():
        return False
    if _is_split(file.stem) or file.name in COCO_FILES:
        return True
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(_PEEK)
        stream.seek(max(_PEEK, size - _PEEK))
        text = head + stream.read()
    opened = head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")
    return opened and (size > 2 * _PEEK or all(key in text for key in (b'"images"', b'"annotations"', b'"categories"')))


def _root_of(file: Path) -> Path:
    return file.parent.parent if file.parent.name == "annotations" else file.parent


def _is_split(name: str) -> bool:
    return split_name(name) in _SPLITS


def _instances_first(file: Path) -> tuple[bool, str]:
    return file.stem.startswith("panoptic"), file.stem


def _without_prefix(stem: str) -> str:
    for prefix in _PREFIXES:
        stem = stem.removeprefix(prefix)
    return stem


def coco_splits(data: Path) -> list[str]:
    """Names of the COCO splits of a folder."""
    return list(coco_places(data))


def _place(data: Path, file: Path) -> CocoPlace:
    stem = _without_prefix(file.stem)
    images = data / "images"
    folders = (images, images / stem, images / split_name(stem), data / stem, data / split_name(stem), data / "data", data)
    return CocoPlace(file, tuple(dict.fromkeys(folders)))


def yolo_file(data: Path) -> Path | None:
    """The description file of a YOLO set: the file itself, or the one in the folder."""
    if data.is_file():
        return data if data.suffix in (".yaml", ".yml") and data.name != SATELLITE_FILE else None
    return next((data / name for name in YOLO_FILES if (data / name).is_file()), None)


def looks_like_yolo(data: Path) -> str:
    """Why a folder is a YOLO set, or nothing."""
    file = yolo_file(data)
    return f"{file.name} describes a YOLO set" if file is not None else ""


def yolo_without_description(data: Path) -> str:
    """What to add to an error about a folder with YOLO's labels but without its data.yaml; empty for any other folder."""
    labels = data / "labels"
    if labels.is_dir() and next(labels.glob("**/*.txt"), None) is not None:
        return ": labels/ holds text files as YOLO has them, but data.yaml, which names the classes and the splits, is missing"
    return ""


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
