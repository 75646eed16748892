"""The lists of a COCO file: which entries are sound, and what is wrong with the others.

Format: https://cocodataset.org/#format-data. A faulty entry becomes a finding with its line and is left out.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from apex_runtime.data.coco import masks as coco_masks
from apex_runtime.data.findings import Fault, Finding, Findings, shown
from apex_runtime.data.image import MAX_PIXELS
from apex_runtime.data.json_lines import JsonFile
from apex_runtime.errors import DataError
from apex_runtime.model_info import Category

LISTS = ("images", "annotations", "categories")

# Tools that count pixel corners, start at 1 or round outwards end a box up to one pixel beyond the image. More than that is
# another image, another scale or a picture that was cut without its annotations.
ROUNDING_PX = 1.0

Problem = tuple[Fault, str]


class CocoImage(NamedTuple):
    """A sound entry of the list of images, and its place in that list."""

    place: int
    image_id: int
    file_name: str
    width: int
    height: int


def read_coco(path: Path) -> JsonFile:
    """Read a COCO file. Raises DataError when it is missing, is not JSON, or lacks one of the three lists or has an empty one."""
    file = JsonFile(path)
    missing = [key for key in LISTS if not isinstance(file.values.get(key), list)]
    if missing:
        raise DataError(
            f"{path}: not a COCO instance file: no list {shown(missing)}.",
            "A COCO file is an object with the lists images, annotations and categories.",
            path=path,
        )
    for key, remedy in (("images", "Add images, or leave this split out."), ("categories", "Name at least one class.")):
        if not file.values[key]:
            raise DataError(f"{path}: the list of {key} is empty.", remedy, path=path)
    return file


def parse_categories(file: JsonFile, findings: Findings) -> tuple[dict[str, Any], ...]:
    """The sound entries of the list of categories, sorted by id: the position is the label. Ids may have gaps."""
    sound: dict[int, dict[str, Any]] = {}
    for index, entry in enumerate(file.values["categories"]):
        problem = _category_problem(entry, sound)
        if problem is None:
            sound[entry["id"]] = entry
        else:
            report(findings, file, "categories", index, problem)
    return tuple(sound[key] for key in sorted(sound))


def as_categories(entries: tuple[dict[str, Any], ...]) -> tuple[Category, ...]:
    """Category entries as the classes of a data set."""
    return tuple(Category(id=entry["id"], name=entry["name"]) for entry in entries)


def _category_problem(entry: Any, sound: dict[int, dict[str, Any]]) -> Problem | None:
    if not isinstance(entry, dict) or not is_id(entry.get("id")) or not isinstance(entry.get("name"), str):
        return Fault.MALFORMED, f"a category needs an integer id and a name, not {brief(entry)}"
    if entry["id"] in sound:
        return Fault.DUPLICATE_ID, f"category id {entry['id']} appears twice: {sound[entry['id']]['name']}, {entry['name']}"
    twin = next((other for other in sound.values() if other["name"] == entry["name"]), None)
    if twin is not None:
        return Fault.DUPLICATE_ID, f"two categories are called {brief(entry['name'])}: {twin['id']} and {entry['id']}"
    return None


def parse_images(file: JsonFile, findings: Findings) -> tuple[dict[int, CocoImage], set[int]]:
    """The sound images by id in the order of the file, and every image id that was declared, sound or not."""
    sound: dict[int, CocoImage] = {}
    declared: set[int] = set()
    names: set[str] = set()
    for index, entry in enumerate(file.values["images"]):
        problem = _image_problem(entry, declared, names)
        if problem is not None:
            report(findings, file, "images", index, problem)
        if isinstance(entry, dict) and is_id(entry.get("id")):
            if problem is None:
                name, width, height = entry["file_name"], int(entry["width"]), int(entry["height"])
                sound[entry["id"]] = CocoImage(index, entry["id"], name, width, height)
                names.add(str(PurePosixPath(name)))
            declared.add(entry["id"])
    return sound, declared


def _image_problem(entry: Any, declared: set[int], names: set[str]) -> Problem | None:
    if not isinstance(entry, dict) or not is_id(entry.get("id")):
        return Fault.MALFORMED, f"an image needs an integer id, not {brief(entry)}"
    name = f"image {entry['id']} ({brief(entry.get('file_name'))})"
    if entry["id"] in declared:
        return Fault.DUPLICATE_ID, f"{name}: the image id appears twice"
    width, height = entry.get("width"), entry.get("height")
    if not _is_side(width) or not _is_side(height):
        return Fault.MALFORMED, f"{name}: it needs a positive width and height, not {width!r:.40} and {height!r:.40}"
    if width * height > MAX_PIXELS:
        return Fault.MALFORMED, f"{name}: {width}x{height} pixels, the limit is {MAX_PIXELS // 1_000_000} million"
    if not is_safe_name(entry.get("file_name")):
        return Fault.MALFORMED, f"{name}: file_name is no relative path, with slashes, that stays in the image folder"
    if str(PurePosixPath(entry["file_name"])) in names:
        return Fault.DUPLICATE_ID, f"{name}: the file_name appears twice"
    return None


def parse_annotations(
    file: JsonFile, images: dict[int, CocoImage], declared: set[int], category_ids: set[int], findings: Findings
) -> dict[int, list[int]]:
    """Places of the sound annotations in their list, by image id. What shows only on decoding a mask is not known yet.

    Annotations of images that are faulty themselves are left out without a word.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    seen: set[int] = set()
    for index, entry in enumerate(file.values["annotations"]):
        problem = _reference_problem(entry, declared, category_ids, seen)
        image = None if problem is not None else images.get(entry["image_id"])
        if image is not None:
            problem = _shape_problem(entry, image)
        if problem is not None:
            report(findings, file, "annotations", index, (problem[0], f"{annotation_name(entry, images)}: {problem[1]}"))
        if image is not None and (problem is None or not problem[0].is_error):
            groups[image.image_id].append(index)
    return dict(groups)


def annotation_name(entry: Any, images: dict[int, CocoImage]) -> str:
    """What a message calls an annotation: its id and its image."""
    if not isinstance(entry, dict):
        return "annotation"
    image_id = entry.get("image_id")
    image = images.get(image_id) if is_id(image_id) else None
    return f"annotation {brief(entry.get('id'))}" + (f" ({brief(image.file_name)})" if image is not None else "")


def _reference_problem(entry: Any, declared: set[int], category_ids: set[int], seen: set[int]) -> Problem | None:
    """What is wrong with an annotation's ids."""
    if not isinstance(entry, dict) or not is_id(entry.get("id")):
        return Fault.MALFORMED, f"it needs an integer id, not {entry.get('id') if isinstance(entry, dict) else entry!r:.80}"
    if entry["id"] in seen:
        return Fault.DUPLICATE_ID, "the annotation id appears twice"
    seen.add(entry["id"])
    image_id, category_id = entry.get("image_id"), entry.get("category_id")
    if not is_id(image_id) or image_id not in declared:
        return Fault.MALFORMED, f"unknown image_id {image_id!r:.80}"
    if not is_id(category_id) or category_id not in category_ids:
        return Fault.UNKNOWN_CLASS, f"unknown category {category_id!r:.80}"
    return None


def _shape_problem(entry: dict[str, Any], image: CocoImage) -> Problem | None:
    """What is wrong with an annotation's box, or with the form of its other fields."""
    weight = entry.get("weight", 1.0)
    if not is_number(weight) or not 0 < weight <= 1:
        return Fault.MALFORMED, f"weight is {brief(weight)}, not a number above 0 and up to 1"
    if entry.get("iscrowd") not in (None, 0, 1):
        return Fault.MALFORMED, f"iscrowd is {entry['iscrowd']!r:.80}, not 0 or 1"
    segmentation = entry.get("segmentation")
    reason = coco_masks.malformed(segmentation, image.height, image.width)
    if reason:
        return Fault.MALFORMED, reason
    box = entry.get("bbox")
    if box is None and coco_masks.has_segmentation(segmentation):
        return None  # the box is that of the mask
    if not isinstance(box, list) or len(box) != 4 or not {int, float}.issuperset(map(type, box)):
        return Fault.MALFORMED, f"bbox is {brief(box)}, not [x, y, width, height]"
    return box_problem(box, image.height, image.width)


def box_problem(box: list[float], height: int, width: int) -> Problem | None:
    """What is wrong with a COCO box [x, y, width, height] in an image of that size, all in pixels."""
    if 0 <= box[0] <= width - box[2] and 0 <= box[1] <= height - box[3] and box[2] >= 1 and box[3] >= 1:
        return None  # nearly all: not worth the rest
    if not all(map(is_number, box)) or box[2] <= 0 or box[3] <= 0:
        return Fault.INVALID_BOX, f"bbox {_numbers(box)} is not finite or has no positive size"
    x1, y1, x2, y2 = clip_box(box, height, width)
    # Compared in float32, the type in which boxes are handed out: a sliver may be empty there and only there.
    if not (np.float32(x2) > np.float32(x1) and np.float32(y2) > np.float32(y1)):
        return Fault.BOX_OUTSIDE, f"bbox {_numbers(box)} lies outside of the {width}x{height} image"
    beyond = max(-box[0], -box[1], box[0] + box[2] - width, box[1] + box[3] - height)
    if beyond > ROUNDING_PX:
        return Fault.BOX_CLIPPED, f"bbox {_numbers(box)} goes {beyond:.6g} px beyond the {width}x{height} image"
    return None


def clip_box(box: list[float], height: int, width: int) -> tuple[float, float, float, float]:
    """A COCO box [x,y,w,h] in pixels as x1, y1, x2, y2 cut to the image (it may come out empty)."""
    x1, y1 = min(max(box[0], 0.0), width), min(max(box[1], 0.0), height)
    return x1, y1, min(max(box[0] + box[2], 0.0), width), min(max(box[1] + box[3], 0.0), height)


def report(findings: Findings, file: JsonFile, key: str, index: int, problem: Problem) -> None:
    """Note what is wrong with entry ``index`` of the list ``key``."""
    findings.append(Finding(problem[0], file.where(key, index), problem[1]))


def is_id(value: Any) -> TypeGuard[int]:
    """An integer, which true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> TypeGuard[int | float]:
    """A finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < coco_masks.LARGEST


def is_safe_name(name: Any) -> bool:
    """A relative path, with slashes, that does not leave its folder and that a file system can hold."""
    if not isinstance(name, str) or not (name.isascii() or _encodes(name)):
        return False
    if not name or "\\" in name or "\0" in name or ":" in name[:3]:
        return False
    parts = PurePosixPath(name)
    return not parts.is_absolute() and ".." not in parts.parts and str(parts) != "."


def brief(value: Any) -> str:
    """A value from a file as a message shows it: short, and without what a terminal would obey."""
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _encodes(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_side(value: Any) -> TypeGuard[int | float]:
    return is_number(value) and value > 0 and value == int(value)


def _numbers(values: list[float]) -> str:
    return "[" + ", ".join(f"{value:.6g}" if is_number(value) else brief(value) for value in values) + "]"
