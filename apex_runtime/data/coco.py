"""A COCO instance data set: images on disk, boxes, classes and masks per image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from apex_runtime.data import annotations as parsing
from apex_runtime.data.dataset import DatasetType, ImageRecord, InstanceDataset, Instances
from apex_runtime.data.findings import Findings, Location, shown
from apex_runtime.data.layouts import coco_places
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.errors import DataError
from apex_runtime.model_info import Category


class CocoDataset(InstanceDataset):
    """Images and instances of one COCO file, in the order of the file; images without objects belong to it.

    ``categories`` are sorted by id (ids may have gaps); ``dropped_boxes`` counts annotations without area in their image.
    Raises DataError for a file that is not COCO, images that are absent, unknown classes and the like.
    """

    kind: DatasetType = "coco"

    def __init__(self, annotations: Path, images: Path, split: str = "", strict: bool = True) -> None:
        self.source, self.images = Path(annotations), Path(images)
        self.split = split or self.source.stem
        self.findings: Findings = []
        self._document = parsing.load_coco(self.source)
        self.categories: tuple[Category, ...] = parsing.parse_categories(self.source, self._document)
        parsing.check_images(self.source, self._document)
        parsing.check_annotations(self.source, self._document, self.categories)
        self.records: list[ImageRecord] = _locate(self.source, self.images, self._document["images"])
        self._by_image, self.dropped_boxes = parsing.group_by_image(self.source, self._document)
        self._label_of = {category.id: label for label, category in enumerate(self.categories)}

    def ground_truth(self) -> dict[str, Any]:
        """The COCO document as it was loaded, for an evaluator. Not to be changed."""
        return self._document

    def annotation_files(self) -> list[Path]:
        """The one file."""
        return [self.source]

    def decode(self, index: int) -> tuple[Instances, Findings]:
        """The objects of image ``index``. Raises DataError when a segmentation cannot be decoded."""
        record = self.records[index]
        entries = self._by_image.get(record.image_id, [])
        boxes = [parsing.clip_box(entry["bbox"], record.height, record.width) for entry in entries]
        masks = [self._mask(entry, record) for entry in entries]
        found = Instances(
            boxes=np.array(boxes, np.float32).reshape(-1, 4),
            labels=np.array([self._label_of[entry["category_id"]] for entry in entries], np.int64),
            masks=masks,
            crowd=np.array([bool(entry.get("iscrowd", 0)) for entry in entries], bool),
            areas=np.array([_area(entry, mask) for entry, mask in zip(entries, masks, strict=True)], np.float32),
        )
        return found, []

    def _mask(self, entry: dict[str, Any], record: ImageRecord) -> RoiMask | None:
        try:
            return parsing.decode_segmentation(entry.get("segmentation"), record.height, record.width)
        except ValueError as error:
            message = f"{self.source}: annotation {entry['id']} ({record.file_name}): broken segmentation: {error}."
            raise DataError(message, "Correct or remove this annotation.", path=self.source) from error


def _locate(annotations: Path, images: Path, entries: list[dict[str, Any]]) -> list[ImageRecord]:
    """A record per image; a file may also lie in a sub-folder named like the split. Raises DataError when some are absent."""
    if not images.is_dir():
        raise DataError(
            f"{images}: image folder of {annotations} not found.", "Put the images there, named by file_name.", path=images
        )
    records, absent = [], []
    for entry in entries:
        name = entry["file_name"]
        candidates = (images / name, images / annotations.stem / name)
        path = next((candidate for candidate in candidates if candidate.is_file()), None)
        if path is None:
            absent.append(name)
        else:
            records.append(ImageRecord(entry["id"], name, entry["width"], entry["height"], path, Location(annotations)))
    if absent:
        raise DataError(
            f"{annotations}: {len(absent)} of {len(entries)} images are absent under {images}: {shown(absent)}.",
            "Copy them there, or remove them from the annotation file.",
            path=annotations,
        )
    return records


def _area(entry: dict[str, Any], mask: RoiMask | None) -> float:
    if "area" in entry:
        return float(entry["area"])
    return float(mask.area) if mask is not None else float(entry["bbox"][2] * entry["bbox"][3])


def open_coco(data: Path, split: str, strict: bool = True) -> InstanceDataset:
    """The split of a COCO folder (see ``layouts.coco_places``). Raises DataError for what is in it."""
    place = coco_places(Path(data))[split]
    return CocoDataset(place.annotations, place.images[0], split, strict)
