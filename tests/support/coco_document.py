"""A small COCO document with every form of mask and some faults that cost one annotation, and its images."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.data.findings import Fault

BITS = np.zeros((20, 30), np.uint8)
BITS[5:9, 10:14] = 1
COMPRESSED = coco_mask.encode(np.asfortranarray(BITS))["counts"].decode()
FIRST_RUN = 10 * 20 + 5
SQUARE = [10, 5, 14, 5, 14, 9, 10, 9]

DOCUMENT: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "sub/a.png", "width": 30, "height": 20},
        {"id": 3, "file_name": "b.png", "width": 30, "height": 20},
    ],
    "categories": [{"id": 90, "name": "z"}, {"id": 5, "name": "a"}, {"id": 17, "name": "m"}],
    "annotations": [
        {"id": 0, "image_id": 7, "category_id": 90, "bbox": [10, 5, 4, 4], "segmentation": [SQUARE], "area": 16.5, "iscrowd": 0},
        {
            "id": 1,
            "image_id": 7,
            "category_id": 5,
            "bbox": [10, 5, 4, 4],
            "segmentation": {"size": [20, 30], "counts": COMPRESSED},
        },
        {
            "id": 2,
            "image_id": 7,
            "category_id": 17,
            "bbox": [10, 5, 4, 4],
            "iscrowd": 1,
            "segmentation": {"size": [20, 30], "counts": [FIRST_RUN, 4, 16, 4, 16, 4, 16, 4, 600 - FIRST_RUN - 64]},
        },
        {"id": 3, "image_id": 7, "category_id": 5, "bbox": [-5, 15, 10, 99], "segmentation": []},
        {"id": 4, "image_id": 7, "category_id": 5, "bbox": [2, 2, 0, 9], "segmentation": []},
        {"id": 5, "image_id": 7, "category_id": 5, "bbox": [31, 2, 5, 9]},
        {
            "id": 6,
            "image_id": 7,
            "category_id": 5,
            "bbox": [0, 0, 14, 9],
            "segmentation": [[1, 1, 2, 2], SQUARE, [0, 0, 3, 0, 3, 2, 0, 2]],
        },
    ],
}


def lines_of(document: dict[str, list[Any]]) -> str:
    """JSON with one entry of a list per line: entry n of the first list stands on line n + 3 (from 0)."""
    lists = (f'"{key}": [\n' + ",\n".join(json.dumps(entry) for entry in entries) + "\n]" for key, entries in document.items())
    return "{\n" + ",\n".join(lists) + "\n}\n"


def save(folder: Path, document: Any, images: bool = True) -> Path:
    path = folder / "annotations" / "train.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    if images:
        (folder / "images" / "sub").mkdir(parents=True, exist_ok=True)
        for name in ("sub/a.png", "b.png"):
            cv2.imwrite(str(folder / "images" / name), np.full((20, 30, 3), (1, 2, 3), np.uint8))
    return path


def changed(path: str, value: Any) -> dict[str, Any]:
    """The document with the value at ``list.index.key`` replaced, or removed when it is ``...``."""
    document = copy.deepcopy(DOCUMENT)
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = document
    for part in way:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return document


def found_in(dataset: InstanceDataset) -> list[tuple[Fault, str]]:
    """Every finding of the parse and of every image."""
    found = [*dataset.findings, *(each for index in range(len(dataset)) for each in dataset.decode(index)[1])]
    return [(each.fault, each.message) for each in found]


USUAL = {  # what the document itself has: faults that cost one annotation, or nothing
    (Fault.BOX_CLIPPED, "annotation 3 (sub/a.png): bbox [-5, 15, 10, 99] goes 94 px beyond the 30x20 image"),
    (Fault.INVALID_BOX, "annotation 4 (sub/a.png): bbox [2, 2, 0, 9] is not finite or has no positive size"),
    (Fault.BOX_OUTSIDE, "annotation 5 (sub/a.png): bbox [31, 2, 5, 9] lies outside of the 30x20 image"),
    (Fault.SMALL_PIECES, "annotation 6 (sub/a.png): 1 of 3 polygons: the first has 2 distinct points, left out"),
}
