"""COCO instance data sets: images on disk, boxes, classes and masks per image, and the opening of any COCO file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from apex_runtime.data.coco import annotations as parsing
from apex_runtime.data.coco.annotations import CocoImage
from apex_runtime.data.coco.masks import decode_segmentation
from apex_runtime.data.dataset import DatasetType, ImageRecord, InstanceDataset, Instances, refuse
from apex_runtime.data.findings import Fault, Finding, Findings
from apex_runtime.data.image import image_size
from apex_runtime.data.json_lines import JsonFile
from apex_runtime.data.layouts import coco_places
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.errors import DataError, ImageError
from apex_runtime.model_info import Category


class _Object(NamedTuple):
    """A sound annotation: as the evaluator gets it, its box as x1, y1, x2, y2 cut to the image, its mask and area in pixels."""

    entry: dict[str, Any]
    box: tuple[float, float, float, float]
    mask: RoiMask | None
    area: float


class CocoDataset(InstanceDataset):
    """Images and instances of one COCO file, in the order of the file; images without objects belong to it.

    ``file`` is the path, or the document where it has been read; ``images`` are the folders in which an image is looked for, in
    that order. ``categories`` are sorted by id (ids may have gaps). Raises DataError for a file that is not COCO and, when
    strict, for a fault that stops a training.
    """

    kind: DatasetType = "coco"

    def __init__(self, file: Path | JsonFile, images: Path | Sequence[Path], split: str = "", strict: bool = True) -> None:
        self._file = file if isinstance(file, JsonFile) else parsing.read_coco(Path(file))
        self.source = self._file.path
        self.split = split or self.source.stem
        self.findings: Findings = []
        self._classes = parsing.parse_categories(self._file, self.findings)
        self.categories: tuple[Category, ...] = parsing.as_categories(self._classes)
        self._images, declared = parsing.parse_images(self._file, self.findings)
        self._label_of = {category.id: label for label, category in enumerate(self.categories)}
        self._places = parsing.parse_annotations(self._file, self._images, declared, set(self._label_of), self.findings)
        folders = [images] if isinstance(images, Path) else images
        self.records: list[ImageRecord] = locate(self._file, self._images.values(), folders, self.findings, strict)
        usable(self, strict)

    def _document(self) -> dict[str, Any]:
        """The file as it was loaded, without what is left out of the data set."""
        images = self._file.values["images"]
        return {
            **self._file.values,
            "images": [images[self._images[record.image_id].place] for record in self.records],
            "categories": list(self._classes),
            "annotations": [found.entry for index in range(len(self)) for found in self._objects(index)[0]],
        }

    def annotation_files(self) -> list[Path]:
        """The one file."""
        return [self.source]

    def decode(self, index: int) -> tuple[Instances, Findings]:
        """The objects of image ``index``, and the masks that are none."""
        objects, findings = self._objects(index)
        found = Instances(
            boxes=np.array([each.box for each in objects], np.float32).reshape(-1, 4),
            labels=np.array([self._label_of[each.entry["category_id"]] for each in objects], np.int64),
            masks=[each.mask for each in objects],
            crowd=np.array([bool(each.entry.get("iscrowd")) for each in objects], bool),
            areas=np.array([each.area for each in objects], np.float32),
            weights=np.array([each.entry.get("weight", 1.0) for each in objects], np.float32),
        )
        return found, findings

    def _objects(self, index: int) -> tuple[list[_Object], Findings]:
        record = self.records[index]
        objects, findings = [], Findings()
        for place in self._places.get(record.image_id, ()):
            entry = self._file.values["annotations"][place]
            decoded = decode_segmentation(entry.get("segmentation"), record.height, record.width)
            where = self._file.where("annotations", place)
            name = f"annotation {entry['id']} ({parsing.brief(record.file_name)})"
            findings += [Finding(fault, where, f"{name}: {reason}") for fault, reason in decoded.faults]
            if not any(fault.is_error for fault, _ in decoded.faults):
                objects.append(_object({**entry, "segmentation": decoded.segmentation}, decoded.mask, record))
        return objects, findings


def _object(entry: dict[str, Any], mask: RoiMask | None, record: ImageRecord) -> _Object:
    """An annotation with the box and the area that it lacks taken from its mask."""
    if entry.get("bbox") is None:
        assert mask is not None  # the parser has asked for one of the two
        entry["bbox"] = [float(mask.x), float(mask.y), float(mask.bits.shape[1]), float(mask.bits.shape[0])]
    if not parsing.is_number(entry.get("area")) or entry["area"] <= 0:
        entry["area"] = float(mask.area) if mask is not None else float(entry["bbox"][2] * entry["bbox"][3])
    return _Object(entry, parsing.clip_box(entry["bbox"], record.height, record.width), mask, float(entry["area"]))


def locate(
    file: JsonFile, images: Iterable[CocoImage], folders: Sequence[Path], findings: Findings, strict: bool
) -> list[ImageRecord]:
    """A record per image that lies in one of the folders; the others become findings.

    When strict, the header of each is read, so that what cannot be used is known before a training starts, and DataError is
    raised when no image is there.
    """
    present = [folder for folder in folders if folder.is_dir()]
    records: list[ImageRecord] = []
    absent: list[str] = []
    for image in images:
        # os.path.isfile says no, where Path.is_file raises, to names that no file system holds.
        path = next((path for folder in present if os.path.isfile(path := folder / image.file_name)), None)
        declared = file.where("images", image.place)
        if path is not None:
            records.append(ImageRecord(image.image_id, image.file_name, image.width, image.height, path, declared))
            if strict:
                findings += header_faults(records[-1])
        else:
            absent.append(f"image {image.image_id} ({parsing.brief(image.file_name)})")
            findings.append(Finding(Fault.MISSING_IMAGE, declared, f"{absent[-1]}: not found in {_listed(present)}"))
    if strict and absent and not records:
        raise DataError(
            f"{file.path}: none of its {len(absent)} images is there, the first is {absent[0]}; looked in {_listed(folders)}.",
            "Put them into one of these folders, under their file_name.",
            path=file.path,
        )
    return records


def header_faults(record: ImageRecord) -> Findings:
    """What the header of an image tells: it cannot be read, or has another size than it is annotated with."""
    try:
        height, width = image_size(record.path)
    except ImageError as error:
        return [Finding(Fault.UNREADABLE_IMAGE, record.declared, error.message)]
    if (height, width) == (record.height, record.width):
        return []
    message = f"image {parsing.brief(record.file_name)} is {width}x{height}, annotated as {record.width}x{record.height}"
    return [Finding(Fault.SIZE_MISMATCH, record.declared, message)]


def _listed(folders: Sequence[Path]) -> str:
    return ", ".join(str(folder) for folder in folders)


def usable(dataset: InstanceDataset, strict: bool) -> None:
    """Raise DataError for what stops a training when strict, and always when no class is left."""
    if strict or not dataset.categories:
        refuse(dataset.findings, dataset.source)


def open_coco(data: Path, split: str, strict: bool = True) -> InstanceDataset:
    """The split of a COCO folder (see ``layouts.coco_places``): instances, or panoptic segments. Raises DataError."""
    from apex_runtime.data.coco.panoptic import PanopticDataset, is_panoptic

    place = coco_places(Path(data))[split]
    file = parsing.read_coco(place.annotations)
    if is_panoptic(file):
        return PanopticDataset(file, None, place.images, split, strict)
    return CocoDataset(file, place.images, split, strict)
