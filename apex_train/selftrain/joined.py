"""Images of a data set and images with pseudo labels as one split, and how often an epoch looks at either."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from apex_runtime.data.coco.masks import decode_segmentation
from apex_runtime.data.dataset import ImageRecord, InstanceDataset, Instances
from apex_runtime.data.findings import Findings, Location
from apex_runtime.data.image import Picture
from apex_runtime.model_info import Category
from apex_train.pseudo.pictures import Pictures

LABELLED, PSEUDO = "labelled", "pseudo"


class PseudoLabelled(InstanceDataset):
    """The images of ``pictures`` that a file of pseudo labels (``apex_train.pseudo.document``) names, with its labels.

    ``categories``: the classes, and their order, of the data set that it is joined with; those of the file bear the same names.
    """

    kind = "coco"
    split = "train"

    def __init__(self, file: Path, pictures: Pictures, categories: tuple[Category, ...]) -> None:
        content = json.loads(file.read_text(encoding="utf-8"))
        self.source, self.categories, self.findings = file, categories, []
        self._pictures = pictures
        names = {each["id"]: each["name"] for each in content["categories"]}
        label_of = {category.name: label for label, category in enumerate(categories)}
        self._label_of = {number: label_of[name] for number, name in names.items() if name in label_of}
        self._entries: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for entry in content["annotations"]:
            self._entries[entry["image_id"]].append(entry)
        item_of = {item.file_name: item for item in pictures.items}
        self._items = [item_of[image["file_name"]] for image in content["images"]]
        self.records = [
            ImageRecord(image["id"], image["file_name"], image["width"], image["height"], item.path, Location(file))
            for image, item in zip(content["images"], self._items, strict=True)
        ]

    def annotation_files(self) -> list[Path]:
        """The file of the labels."""
        return [self.source]

    def read(self, index: int) -> Picture:
        """Image ``index``. Raises ImageError, DataError."""
        return self._pictures.picture(self._items[index])

    def decode(self, index: int) -> tuple[Instances, Findings]:
        """The labels and the unsure regions of image ``index``, as they were written."""
        record = self.records[index]
        entries = self._entries[record.image_id]
        masks = [decode_segmentation(entry["segmentation"], record.height, record.width).mask for entry in entries]
        boxes_n4 = np.array([entry["bbox"] for entry in entries], np.float32).reshape(-1, 4)
        boxes_n4[:, 2:] += boxes_n4[:, :2]
        found = Instances(
            boxes=boxes_n4,
            labels=np.array([self._label_of[entry["category_id"]] for entry in entries], np.int64),
            masks=masks,
            crowd=np.array([bool(entry["iscrowd"]) for entry in entries], bool),
            areas=np.array([entry["area"] for entry in entries], np.float32),
            weights=np.array([entry.get("weight", 1.0) for entry in entries], np.float32),
        )
        return found, []


class Joined(InstanceDataset):
    """Two splits one after the other, the second with the classes of the first. Names and ids of images are new, and unique."""

    def __init__(self, labelled: InstanceDataset, pseudo: InstanceDataset) -> None:
        self._parts = (labelled, pseudo)
        self.kind, self.source, self.split = labelled.kind, labelled.source, labelled.split
        self.categories, self.options = labelled.categories, labelled.options
        self.findings = [*labelled.findings, *pseudo.findings]
        named = [(name, record) for name, part in zip((LABELLED, PSEUDO), self._parts, strict=True) for record in part.records]
        self.records = [
            replace(record, image_id=number, file_name=f"{name}/{record.file_name}")
            for number, (name, record) in enumerate(named, start=1)
        ]

    def annotation_files(self) -> list[Path]:
        """Those of both."""
        return [file for part in self._parts for file in part.annotation_files()]

    def read(self, index: int) -> Picture:
        """Image ``index`` as its part reads it."""
        part, place = self._find(index)
        return part.read(place)

    def decode(self, index: int) -> tuple[Instances, Findings]:
        """The objects of image ``index`` as its part has them."""
        part, place = self._find(index)
        return part.decode(place)

    def _find(self, index: int) -> tuple[InstanceDataset, int]:
        first = len(self._parts[0])
        return (self._parts[0], index) if index < first else (self._parts[1], index - first)


def looks(labelled: int, pseudo: int, labelled_share: float) -> tuple[float, float]:
    """How often an epoch of a joined split looks at a labelled image, and at another one, on average.

    An epoch has as many looks as there are images; ``labelled_share`` of them (0..1) go to the labelled ones.
    """
    total = labelled + pseudo
    return labelled_share * total / labelled, (1 - labelled_share) * total / pseudo
