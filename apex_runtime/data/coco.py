"""A COCO instance data set: images on disk, boxes, classes and masks per image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apex_runtime.data import annotations as parsing
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.errors import DataError, UsageError
from apex_runtime.model_info import Category


@dataclass(frozen=True)
class ImageRecord:
    """One image of the set: its COCO id and name, its size in pixels, and where it lies."""

    image_id: int
    file_name: str
    width: int
    height: int
    path: Path


@dataclass(frozen=True, eq=False)
class Instances:
    """The n objects of one image.

    ``boxes`` float32 [n,4] xyxy in pixels, cut to the image; ``labels`` int64 [n], positions in the data set's categories;
    ``masks`` n masks cut to their boxes, None where the annotation has none; ``crowd`` bool [n]; ``areas`` float32 [n] in pixels.
    """

    boxes: np.ndarray
    labels: np.ndarray
    masks: list[RoiMask | None]
    crowd: np.ndarray
    areas: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


class CocoDataset:
    """Images and instances of one COCO file, in the order of the file; images without objects belong to it.

    ``categories`` are sorted by id (ids may have gaps); ``dropped_boxes`` counts annotations without area in their image.
    Raises DataError for a file that is not COCO, images that are absent, unknown classes and the like.
    """

    def __init__(self, annotations: Path, images: Path) -> None:
        self.annotations, self.images = Path(annotations), Path(images)
        self._document = parsing.load_coco(self.annotations)
        self.categories: tuple[Category, ...] = parsing.parse_categories(self.annotations, self._document)
        parsing.check_images(self.annotations, self._document)
        parsing.check_annotations(self.annotations, self._document, self.categories)
        self.records: list[ImageRecord] = _locate(self.annotations, self.images, self._document["images"])
        self._by_image, self.dropped_boxes = parsing.group_by_image(self.annotations, self._document)
        self._label_of = {category.id: label for label, category in enumerate(self.categories)}

    def __len__(self) -> int:
        return len(self.records)

    def ground_truth(self) -> dict[str, Any]:
        """The COCO document as it was loaded, for an evaluator. Not to be changed."""
        return self._document

    def read_image(self, index: int) -> np.ndarray:
        """Image ``index`` as uint8 [h,w,3] RGB. Raises ImageError, or DataError when its size is not the annotated one."""
        from apex_runtime.data.image import decode_image

        record = self.records[index]
        image = decode_image(record.path)
        if image.shape[:2] != (record.height, record.width):
            found, annotated = f"{image.shape[1]}x{image.shape[0]}", f"{record.width}x{record.height}"
            raise DataError(
                f"{record.path}: the image is {found}, {self.annotations} says {annotated}.",
                "Annotate the image as it is shown (EXIF orientation applied), or correct width and height.",
                path=record.path,
            )
        return image

    def instances(self, index: int) -> Instances:
        """The objects of image ``index``. Raises DataError when a segmentation cannot be decoded."""
        record = self.records[index]
        entries = self._by_image.get(record.image_id, [])
        boxes = [parsing.clip_box(entry["bbox"], record.height, record.width) for entry in entries]
        masks = [self._mask(entry, record) for entry in entries]
        return Instances(
            boxes=np.array(boxes, np.float32).reshape(-1, 4),
            labels=np.array([self._label_of[entry["category_id"]] for entry in entries], np.int64),
            masks=masks,
            crowd=np.array([bool(entry.get("iscrowd", 0)) for entry in entries], bool),
            areas=np.array([_area(entry, mask) for entry, mask in zip(entries, masks, strict=True)], np.float32),
        )

    def _mask(self, entry: dict[str, Any], record: ImageRecord) -> RoiMask | None:
        try:
            return parsing.decode_segmentation(entry.get("segmentation"), record.height, record.width)
        except ValueError as error:
            message = f"{self.annotations}: annotation {entry['id']} ({record.file_name}): broken segmentation: {error}."
            raise DataError(message, "Correct or remove this annotation.", path=self.annotations) from error


def open_split(data_dir: Path, split: str) -> CocoDataset:
    """The split ``data_dir/annotations/<split>.json``, its images under ``data_dir/images`` or ``data_dir/images/<split>``.

    Raises UsageError when there is no such folder or split, naming the splits that exist; DataError for what is in it.
    """
    folder = Path(data_dir)
    if not folder.is_dir():
        raise UsageError(
            f"{folder}: data folder not found.", "Give a folder with annotations/<split>.json and images/.", path=folder
        )
    file = folder / "annotations" / f"{split}.json"
    if not file.is_file():
        found = parsing.shown(sorted(path.stem for path in (folder / "annotations").glob("*.json"))) or "none"
        raise UsageError(
            f"{file}: no such split. Splits found: {found}.", "A COCO set has annotations/<split>.json and images/.", path=file
        )
    return CocoDataset(file, folder / "images")


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
            records.append(ImageRecord(entry["id"], name, entry["width"], entry["height"], path))
    if absent:
        raise DataError(
            f"{annotations}: {len(absent)} of {len(entries)} images are absent under {images}: {parsing.shown(absent)}.",
            "Copy them there, or remove them from the annotation file.",
            path=annotations,
        )
    return records


def _area(entry: dict[str, Any], mask: RoiMask | None) -> float:
    if "area" in entry:
        return float(entry["area"])
    return float(mask.area) if mask is not None else float(entry["bbox"][2] * entry["bbox"][3])
