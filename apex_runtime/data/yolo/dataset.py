"""A YOLO set as a data set: ``data.yaml``, images, and a text file of boxes and polygons for each of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from apex_runtime.data.coco.masks import Decoded, decode_segmentation
from apex_runtime.data.dataset import DatasetType, ImageRecord, InstanceDataset, Instances, refuse
from apex_runtime.data.findings import Fault, Finding, Findings, Location
from apex_runtime.data.image import image_size
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.data.yolo.description import YoloDescription, load_description
from apex_runtime.data.yolo.images import ListedImage, listed_images, split_folders
from apex_runtime.data.yolo.labels import ImageLabels, LabelledObject, label_places, read_labels, unused_labels
from apex_runtime.errors import DataError, ImageError
from apex_runtime.model_info import Category


def yolo_splits(data: Path) -> list[str]:
    """Names of the splits that the description names. Raises UsageError when there is none, DataError when it is broken."""
    return list(load_description(Path(data)).splits)


class YoloDataset(InstanceDataset):
    """One split of a YOLO set, its images in the order of their names; ids count from 1, classes have their index as id.

    Labels are parsed and image headers read when it is opened; polygons become masks in ``decode``, by the code that serves COCO.
    Raises UsageError for an unknown split, and DataError for a description, list or split that cannot be opened at all; with
    ``strict`` also for findings that stop a training.
    """

    kind: DatasetType = "yolo"

    def __init__(self, data: Path, split: str, strict: bool = True) -> None:
        description = load_description(Path(data))
        self.source, self.split = description.file, split
        self.categories = tuple(Category(id=index, name=name) for index, name in enumerate(description.names))
        images, self.findings = listed_images(description, split)
        self.findings += _name_twins(description)
        self.records: list[ImageRecord] = []
        self._labels: list[tuple[Path, ImageLabels] | None] = []
        self._image_of: dict[Path, str] = {}  # by label file
        for image in images:
            self._add(image)
        folders = [folder for folder in split_folders(description, split) if folder.is_dir()]
        self.findings += unused_labels({*folders, *(image.path.parent for image in images)})
        if strict:
            refuse(self.findings, self.source)
        if not self.records and (strict or not self.findings):
            message = f"{self.source}: {split}: no image can be read."
            raise DataError(message, "Check the folder or list that it names.", path=self.source)

    def _add(self, image: ListedImage) -> None:
        """A record and the labels of an image; a finding in their place when it cannot be read."""
        try:
            height, width = image_size(image.path)
        except ImageError as error:
            self.findings.append(Finding(Fault.UNREADABLE_IMAGE, image.declared, error.message.removeprefix(f"{image.path}: ")))
            return
        labels = self._read_labels(image.path, height, width)
        if labels is not None and (twin := self._image_of.setdefault(labels[0], image.name)) != image.name:
            message = f"image {image.name}: its labels, {labels[0].name}, are those of {twin}, too"
            self.findings.append(Finding(Fault.DUPLICATE_ID, image.declared, message))
            return
        image_id = len(self.records) + 1
        self.records.append(ImageRecord(image_id, image.name, width, height, image.path, image.declared))
        self._labels.append(labels)

    def _read_labels(self, image: Path, height: int, width: int) -> tuple[Path, ImageLabels] | None:
        for file in label_places(image):
            try:
                labels, findings = read_labels(file, len(self.categories), height, width)
            except FileNotFoundError:
                continue
            self.findings += findings
            return file, labels
        return None

    def annotation_files(self) -> list[Path]:
        """The label files that exist, in the order of their images. Classes and images are in the fingerprint by themselves."""
        return [entry[0] for entry in self._labels if entry is not None]

    def decode(self, index: int) -> tuple[Instances, Findings]:
        """The objects of image ``index``; polygons that enclose nothing or cover no pixel are left out and named."""
        record, entry = self.records[index], self._labels[index]
        kept: list[tuple[LabelledObject, list[float], RoiMask | None]] = []
        findings: Findings = []
        if entry is None:
            return _instances(kept), findings
        file, labels = entry
        for item in labels:
            box, (mask, _, faults) = _box(item, record), _NO_MASK if item.is_box else _decode_polygon(item, record)
            if not faults and (box[2] <= box[0] or box[3] <= box[1]):
                faults = [(Fault.BOX_OUTSIDE, "no area inside of the image")]
            findings += [Finding(fault, Location(file, item.line), message) for fault, message in faults]
            if not faults:
                kept.append((item, box, mask))
        return _instances(kept), findings


def _name_twins(description: YoloDescription) -> Findings:
    """Classes of one name: whoever reads the results could not tell them apart."""
    first: dict[str, int] = {}
    return [
        Finding(Fault.DUPLICATE_ID, Location(description.file), f"two classes are called {name[:80]}: {first[name]} and {index}")
        for index, name in enumerate(description.names)
        if first.setdefault(name, index) != index
    ]


# Of pixel coordinates. Outlines are drawn in hundredths of a pixel, and pycocotools rounds them to fifths: the digits that a
# label file cut off would decide the ties, and move the edge of a mask by a pixel.
_DECIMALS = 2
_NO_MASK = Decoded(None, [], [])


def _instances(kept: list[tuple[LabelledObject, list[float], RoiMask | None]]) -> Instances:
    boxes = np.array([box for _, box, _ in kept], np.float32).reshape(-1, 4)
    sizes = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return Instances(
        boxes=boxes,
        labels=np.array([item.label for item, _, _ in kept], np.int64),
        masks=[mask for _, _, mask in kept],
        crowd=np.zeros(len(kept), bool),
        areas=np.array([mask.area if mask else size for (_, _, mask), size in zip(kept, sizes, strict=True)], np.float32),
    )


def _box(item: LabelledObject, record: ImageRecord) -> list[float]:
    """x1, y1, x2, y2 in pixels cut to the image, rounded to float32, in which a sliver may be empty."""
    sides = np.array([record.width, record.height] * 2)
    return [float(side) for side in np.clip(np.array(item.bounds()) * sides, 0, sides).astype(np.float32)]


def _decode_polygon(item: LabelledObject, record: ImageRecord) -> Decoded:
    polygon = np.round(item.numbers.reshape(-1, 2) * (record.width, record.height), _DECIMALS)
    return decode_segmentation([polygon.reshape(-1).tolist()], record.height, record.width)
