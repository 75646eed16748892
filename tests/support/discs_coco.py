"""Six images of bright discs, which the tiny model finds, as a COCO set: instances, and a panoptic twin with stuff and void."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from pictures import discs, save
from pycocotools import mask as coco_mask

SIDE = 128
THING, STUFF = 3, 8  # category ids; the model's own id of the class is another


def write_discs(folder: Path) -> Path:
    """``annotations/test.json`` and ``panoptic_test.json``: one or two discs per image, ground below, a strip of void on top."""
    images, annotations, panoptic = [], [], []
    rng = np.random.default_rng(5)
    for number in range(1, 7):
        places = [(16 + 32 * int(rng.integers(0, 4)), 16 + 32 * int(rng.integers(0, 4)), 11) for _ in range(1 + number % 2)]
        save(folder / "images" / f"{number}.png", discs(SIDE, SIDE, *places))
        images.append({"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE})
        ids = np.full((SIDE, SIDE), 1000)
        ids[:3] = 0
        for place in dict.fromkeys(places):
            bits = discs(SIDE, SIDE, place)[:, :, 0] > 0
            encoded = coco_mask.encode(np.asfortranarray(bits.astype(np.uint8)))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": THING,
                    "bbox": coco_mask.toBbox(encoded).tolist(),
                    "area": int(coco_mask.area(encoded)),
                    "iscrowd": 0,
                    "segmentation": {"size": [SIDE, SIDE], "counts": encoded["counts"].decode()},
                }
            )
            ids[bits] = 70_000 + len(annotations)
        panoptic.append(panoptic_annotation(folder / "annotations" / "panoptic_test", number, ids))
    thing = {"id": THING, "name": "blob"}
    write(folder / "annotations" / "test.json", {"images": images, "annotations": annotations, "categories": [thing]})
    classes = [thing | {"isthing": 1}, {"id": STUFF, "name": "ground", "isthing": 0}]
    document = {"images": images, "annotations": panoptic, "categories": classes}
    write(folder / "annotations" / "panoptic_test.json", document)
    return folder


def panoptic_annotation(pictures: Path, number: int, ids: np.ndarray) -> dict:
    """Write one PNG; its annotation: id 1000 is the ground, what is above is a disc."""
    pictures.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(pictures / f"{number}.png"), np.stack([ids >> 16, ids >> 8 & 255, ids & 255], -1).astype(np.uint8))
    found, areas = np.unique(ids[ids > 0], return_counts=True)
    segments = [
        {"id": segment, "category_id": STUFF if segment == 1000 else THING, "area": area, "iscrowd": 0}
        for segment, area in zip(found.tolist(), areas.tolist(), strict=True)
    ]
    return {"image_id": number, "file_name": f"{number}.png", "segments_info": segments}


def write(path: Path, document: object) -> None:
    """A JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
