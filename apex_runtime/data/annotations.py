"""COCO instance annotations: what is accepted, and what is refused before any training starts.

Format: https://cocodataset.org/#format-data. Every refusal names the file, the first offenders and the remedy.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from apex_runtime.data.findings import shown
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.errors import DataError
from apex_runtime.model_info import Category
from apex_runtime.postprocess.rle import rle_to_roi


def load_coco(path: Path) -> dict[str, Any]:
    """Read a COCO instance file. Raises DataError when it is missing, is not JSON or has not the three lists."""
    if not path.is_file():
        raise DataError(f"{path}: annotation file not found.", "Check the data folder and the split name.", path=path)
    try:
        document = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not valid JSON ({error}).", "Export the annotations again.", path=path) from error
    lists = ("images", "annotations", "categories")
    missing = [key for key in lists if not isinstance(document, dict) or not isinstance(document.get(key), list)]
    if missing:
        raise DataError(
            f"{path}: not a COCO instance file: no list {shown(missing)}.",
            "A COCO file is an object with the lists images, annotations and categories.",
            path=path,
        )
    for key in lists:
        _require(
            path, [i for i, entry in enumerate(document[key]) if not isinstance(entry, dict)], f"entries of {key} are not objects"
        )
    return document


def parse_categories(path: Path, document: dict[str, Any]) -> tuple[Category, ...]:
    """Classes sorted by id; the position is the label index. Ids may have gaps. Raises DataError."""
    entries = document["categories"]
    _require(
        path, [e for e in entries if not _is_id(e.get("id")) or not isinstance(e.get("name"), str)], "categories lack id or name"
    )
    if not entries:
        raise DataError(f"{path}: the list of categories is empty.", "Name at least one class.", path=path)
    _require(path, _duplicates(entry["id"] for entry in entries), "category ids appear twice")
    return tuple(sorted((Category(id=e["id"], name=e["name"]) for e in entries), key=lambda category: category.id))


def check_images(path: Path, document: dict[str, Any]) -> None:
    """Every image needs a unique integer id, a positive size and a relative file name that stays in the folder."""
    images = document["images"]
    if not images:
        raise DataError(f"{path}: the list of images is empty.", "Add images, or leave this split out.", path=path)
    _require(path, [e.get("id", e) for e in images if not _is_id(e.get("id"))], "images lack an integer id")
    _require(path, _duplicates(entry["id"] for entry in images), "image ids appear twice")
    sides = ("width", "height")
    bad = [e["id"] for e in images if not all(_is_id(e.get(side)) and e[side] > 0 for side in sides)]
    _require(path, bad, "images lack a positive width and height; their ids")
    _require(
        path,
        [e["id"] for e in images if not _is_safe_name(e.get("file_name"))],
        "images have a file_name that leaves the image folder; ids",
    )


def check_annotations(path: Path, document: dict[str, Any], categories: tuple[Category, ...]) -> None:
    """Every annotation needs a known image and class, a finite ``bbox`` [x,y,w,h] and a segmentation of a known form."""
    annotations = document["annotations"]
    images = {entry["id"]: entry for entry in document["images"]}
    known = {category.id for category in categories}
    _require(path, [e.get("id", e) for e in annotations if not _is_id(e.get("id"))], "annotations lack an integer id")
    _require(path, _duplicates(entry["id"] for entry in annotations), "annotation ids appear twice")
    _require(
        path, [e["id"] for e in annotations if e.get("image_id") not in images], "annotations name an unknown image_id; their ids"
    )
    bad = [f"{e['id']} (category {e.get('category_id')})" for e in annotations if e.get("category_id") not in known]
    _require(path, bad, "annotations name an unknown category")
    _require(
        path,
        [e["id"] for e in annotations if not _is_box(e.get("bbox"))],
        "annotations lack a finite bbox [x, y, width, height]; ids",
    )
    bad = [e["id"] for e in annotations if not _is_segmentation(e.get("segmentation", []), images[e["image_id"]])]
    _require(path, bad, "annotations have a segmentation that is neither polygons nor an RLE of the image's size; ids")


def decode_segmentation(segmentation: Any, height: int, width: int) -> RoiMask | None:
    """Polygons (several parts are one mask) or RLE as a mask cut to its box; None where there is no mask or it has no pixel.

    Polygons are filled by pycocotools, so that training sees the masks that the evaluation sees. Raises ValueError.
    """
    if isinstance(segmentation, dict):
        return rle_to_roi(segmentation)
    # Parts of fewer than three points have no area, and pycocotools would read four numbers as a box.
    parts = [part for part in segmentation or [] if len(part) >= 6]
    if not parts:
        return None
    from pycocotools import mask as coco_mask

    return rle_to_roi(coco_mask.merge(coco_mask.frPyObjects(parts, height, width)))


def clip_box(box: list[float], height: int, width: int) -> tuple[float, float, float, float]:
    """A COCO box [x,y,w,h] in pixels as x1, y1, x2, y2 cut to the image (it may come out empty)."""
    x1, y1 = min(max(box[0], 0.0), width), min(max(box[1], 0.0), height)
    return x1, y1, min(max(box[0] + box[2], 0.0), width), min(max(box[1] + box[3], 0.0), height)


def group_by_image(path: Path, document: dict[str, Any]) -> tuple[dict[int, list[dict[str, Any]]], int]:
    """Annotations per image id, without those whose box has no area in the image, and how many those were."""
    sizes = {entry["id"]: (entry["height"], entry["width"]) for entry in document["images"]}
    groups: dict[int, list[dict[str, Any]]] = defaultdict(list)
    dropped = 0
    for entry in document["annotations"]:
        x1, y1, x2, y2 = clip_box(entry["bbox"], *sizes[entry["image_id"]])
        # Compared in float32, the type in which boxes are handed out: a sliver may be empty there and only there.
        if np.float32(x2) > np.float32(x1) and np.float32(y2) > np.float32(y1):
            groups[entry["image_id"]].append(entry)
        else:
            dropped += 1
    return dict(groups), dropped


def _require(path: Path, offenders: list[Any], what: str) -> None:
    if offenders:
        raise DataError(f"{path}: {len(offenders)} {what}: {shown(offenders)}.", "Correct the annotation file.", path=path)


def _duplicates(ids: Iterable[int]) -> list[int]:
    seen: set[int] = set()
    return [value for value in ids if value in seen or seen.add(value)]  # type: ignore[func-returns-value]


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


def _is_safe_name(name: Any) -> bool:
    if not isinstance(name, str) or not name or "\\" in name or "\0" in name or ":" in name[:3]:
        return False
    parts = PurePosixPath(name)
    return not parts.is_absolute() and ".." not in parts.parts


def _is_segmentation(value: Any, image: dict[str, Any]) -> bool:
    if isinstance(value, dict):
        counts = value.get("counts")
        sized = value.get("size") == [image["height"], image["width"]]
        return sized and (isinstance(counts, str) or (isinstance(counts, list) and all(map(_is_id, counts))))
    if value is None:
        return True
    polygons = isinstance(value, list) and all(isinstance(part, list) and len(part) % 2 == 0 for part in value)
    return polygons and all(_is_number(number) for part in value for number in part)
