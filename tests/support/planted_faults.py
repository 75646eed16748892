"""Copies of the committed nuclei with exactly one thing wrong, in each layout, and where a report must say so.

A planter gets the folder of a copy, spoils it, and returns (fault, file relative to the folder, text on the faulty line or None).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

NOT_A_PICTURE = b"this is no picture"


class Planted(NamedTuple):
    """The fault's name, the file that must be named, and its line where there is one."""

    fault: str
    path: str
    line: int | None


Planter = Callable[[Path], Planted]


def copy_of(fixture: Path, target: Path) -> Path:
    """A copy in which every entry of a COCO file has its own line."""
    shutil.copytree(fixture, target)
    for file in target.glob("annotations/*.json"):
        write_coco(file, json.loads(file.read_text()))
    return target


def write_coco(file: Path, document: dict[str, Any]) -> None:
    """A COCO file with one entry per line."""
    lists = {key: value for key, value in document.items() if isinstance(value, list)}
    parts = [f'"{key}": [\n' + ",\n".join(json.dumps(entry) for entry in value) + "\n]" for key, value in lists.items()]
    file.write_text("{" + ",\n".join(parts) + "}\n")


def _entry_line(file: Path, key: str, index: int) -> int:
    """The line of an entry, found in the text and not by the reader that is tested."""
    text = file.read_text().splitlines()
    start = next(number for number, line in enumerate(text) if f'"{key}": [' in line)
    return start + 2 + index  # from 1, and the entries begin on the next line


def _coco(key: str, index: int, fault: str, spoil: Callable[[dict[str, Any], dict[str, Any]], None]) -> Planter:
    """Spoil an entry of a list of train.json; ``spoil`` gets the entry and the document."""

    def plant(data: Path) -> Planted:
        file = data / "annotations" / "train.json"
        document = json.loads(file.read_text())
        spoil(document[key][index], document)
        write_coco(file, document)
        return Planted(fault, "annotations/train.json", _entry_line(file, key, index))

    return plant


def _coco_picture(fault: str, name: str, index: int, change: Callable[[Path], object]) -> Planter:
    """Spoil the picture ``name``, which is entry ``index`` of the images of train.json."""

    def plant(data: Path) -> Planted:
        change(data / "images" / name)
        file = data / "annotations" / "train.json"
        return Planted(fault, "annotations/train.json", _entry_line(file, "images", index))

    return plant


def _coco_overlap(data: Path) -> Planted:
    """A picture of train copied, as other bytes of the same pixels, over one of val that has its size."""
    file = data / "annotations" / "val.json"
    document = json.loads(file.read_text())
    image = document["images"][0]
    document["annotations"] = [entry for entry in document["annotations"] if entry["image_id"] != image["id"]]
    pixels = cv2.imread(str(data / "images" / "03f583ec5018739f.jpg"))
    image.update(file_name="copy.png", height=pixels.shape[0], width=pixels.shape[1])
    cv2.imwrite(str(data / "images" / "copy.png"), pixels)
    write_coco(file, document)
    return Planted("split_overlap", "annotations/val.json", _entry_line(file, "images", 0))


def _other_size(path: Path) -> None:
    cv2.imwrite(str(path), np.zeros((40, 50, 3), np.uint8))


def _empty_rle(entry: dict[str, Any], _document: dict[str, Any]) -> None:
    height, width = entry["segmentation"]["size"]
    entry["segmentation"] = {"size": [height, width], "counts": [height * width]}


def _repeat_id(entry: dict[str, Any], document: dict[str, Any]) -> None:
    entry["id"] = document["annotations"][0]["id"]


# Each spoils another entry, the annotations those of the one image that is left alone: all fit into one copy.
COCO: dict[str, Planter] = {
    "missing image": _coco_picture("missing_image", "8e507d58f4c27cd2.jpg", 1, Path.unlink),
    "unreadable image": _coco_picture(
        "unreadable_image", "9ebcfaf2322932d4.jpg", 2, lambda path: path.write_bytes(NOT_A_PICTURE)
    ),
    "sizes that disagree": _coco_picture("size_mismatch", "bf4a61bb81589c9a.jpg", 3, _other_size),
    "box outside": _coco("annotations", 2, "box_outside", lambda entry, _: entry.update(bbox=[-60, -60, 20, 20])),
    "NaN box": _coco("annotations", 3, "invalid_box", lambda entry, _: entry.update(bbox=[float("nan"), 1, 5, 5])),
    "degenerate polygon": _coco(
        "annotations", 4, "degenerate_polygon", lambda entry, _: entry.update(segmentation=[[1, 1, 9, 9, 5, 5]])
    ),
    "wrong class": _coco("annotations", 5, "unknown_class", lambda entry, _: entry.update(category_id=77)),
    "duplicate id": _coco("annotations", 6, "duplicate_id", _repeat_id),
    "empty mask": _coco("annotations", 7, "empty_mask", _empty_rle),
    "train in val": _coco_overlap,
}


def _label(fault: str, line: str) -> Planter:
    """Add a line to a label file of a YOLO set."""

    def plant(data: Path) -> Planted:
        file = data / "labels" / "train" / "e5aeb5b3577abbeb.txt"
        text = file.read_text().rstrip("\n")
        file.write_text(f"{text}\n{line}\n")
        return Planted(fault, "labels/train/e5aeb5b3577abbeb.txt", text.count("\n") + 2)

    return plant


def _yolo_missing(data: Path) -> Planted:
    names = sorted(path.name for path in (data / "images" / "train").iterdir())
    lines = [f"images/train/{name}" for name in [*names, "absent.jpg"]]
    (data / "train.txt").write_text("\n".join(lines) + "\n")
    description = data / "data.yaml"
    description.write_text(description.read_text().replace("train: images/train", "train: train.txt"))
    return Planted("missing_image", "train.txt", len(lines))


def _yolo_overlap(data: Path) -> Planted:
    shutil.copy(data / "images" / "train" / "03f583ec5018739f.jpg", data / "images" / "val" / "copy.jpg")
    return Planted("split_overlap", "images/val/copy.jpg", None)


def _spoil(fault: str, path: str, change: Callable[[Path], object]) -> Planter:
    def plant(data: Path) -> Planted:
        change(data / path)
        return Planted(fault, path, None)

    return plant


def _cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:400])


YOLO: dict[str, Planter] = {
    "missing image": _yolo_missing,
    "unreadable image": _spoil("unreadable_image", "images/train/9ebcfaf2322932d4.jpg", _cut_off),
    "box outside": _label("box_outside", "0 1.5 0.5 0.1 0.1"),
    "NaN box": _label("invalid_box", "0 nan 0.5 0.1 0.1"),
    "box without size": _label("invalid_box", "0 0.5 0.5 0 0.1"),
    "degenerate polygon": _label("degenerate_polygon", "0 0.1 0.1 0.2 0.2 0.3 0.3"),
    "wrong class": _label("unknown_class", "1 0.5 0.5 0.1 0.1"),
    "train in val": _yolo_overlap,
}


def _strange_colour(path: Path) -> None:
    mask = cv2.imread(str(path))
    mask[:4, :4] = (10, 200, 30)
    cv2.imwrite(str(path), mask)


def _same_name(path: Path) -> None:
    shutil.copy(path.parent / "03f583ec5018739f.jpg", path)


def _missing_mask(data: Path) -> Planted:
    (data / "masks" / "9ebcfaf2322932d4.png").unlink()
    return Planted("missing_mask", "images/9ebcfaf2322932d4.jpg", None)


def _satellite_overlap(data: Path) -> Planted:
    """Folders of splits, and in val a copy of one of the scenes of train with its mask."""
    for folder, suffix in (("images", ".jpg"), ("masks", ".png")):
        files = list((data / folder).iterdir())
        for split in ("train", "val"):
            (data / folder / split).mkdir()
        shutil.copy(data / folder / f"03f583ec5018739f{suffix}", data / folder / "val" / f"copy{suffix}")
        for file in files:
            file.rename(data / folder / "train" / file.name)
    return Planted("split_overlap", "images/val/copy.jpg", None)


SATELLITE: dict[str, Planter] = {
    "missing mask": _missing_mask,
    "train in val": _satellite_overlap,
    "unreadable image": _spoil("unreadable_image", "images/9ebcfaf2322932d4.jpg", lambda path: path.write_bytes(NOT_A_PICTURE)),
    "sizes that disagree": _spoil("size_mismatch", "masks/9ebcfaf2322932d4.png", _other_size),
    "wrong class": _spoil("malformed", "masks/9ebcfaf2322932d4.png", _strange_colour),
    "duplicate id": _spoil("duplicate_id", "images/03f583ec5018739f.png", _same_name),
}
