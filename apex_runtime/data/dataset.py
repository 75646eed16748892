"""The contract of every data set: images on disk, and boxes, classes and masks per image, whatever the files look like.

COCO, YOLO and satellite readers implement it; training, evaluation and the preflight know nothing else.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from apex_runtime.data.findings import Findings, Location, stopping
from apex_runtime.data.image import Picture
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.errors import DataError
from apex_runtime.model_info import Category

DatasetType = Literal["coco", "yolo", "satellite"]
PREFLIGHT = "`apex-train preflight` lists every fault by file and line."


@dataclass(frozen=True)
class ImageRecord:
    """One image of the set: its id and name, its size in pixels as it is shown, where it lies, and where it was declared."""

    image_id: int
    file_name: str
    width: int
    height: int
    path: Path
    declared: Location


@dataclass(frozen=True, eq=False)
class Instances:
    """The n objects of one image.

    ``boxes`` float32 [n,4] xyxy in pixels, cut to the image; ``labels`` int64 [n], positions in the data set's categories;
    ``masks`` n masks cut to their boxes (bits uint8), None where the annotation has none; ``crowd`` bool [n]: regions that are
    neither objects nor background; ``areas`` float32 [n] in pixels; ``weights`` float32 [n], in (0, 1]: how much a training
    counts each, None where the annotations say nothing of it (all 1).
    """

    boxes: np.ndarray
    labels: np.ndarray
    masks: list[RoiMask | None]
    crowd: np.ndarray
    areas: np.ndarray
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)


class InstanceDataset(ABC):
    """One split of a data set. Images without objects belong to it.

    ``source`` is the file or folder that annotates; ``categories`` are the classes, the position is the label; ``findings`` are
    the faults met while the annotations were parsed (a strict reader has raised for those that stop a training).
    """

    kind: DatasetType
    source: Path
    split: str
    categories: tuple[Category, ...]
    records: list[ImageRecord]
    findings: Findings
    options: str = ""  # what a description says about how the files are read, wherever the files lie; part of the fingerprint
    _truth: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.records)

    @abstractmethod
    def decode(self, index: int) -> tuple[Instances, Findings]:
        """The objects of image ``index``, and the faults that only show when masks are decoded. Faulty objects are left out."""

    @abstractmethod
    def annotation_files(self) -> list[Path]:
        """Every file that annotates this split, in a stable order."""

    def instances(self, index: int) -> Instances:
        """The objects of image ``index``. Raises DataError for a fault that stops a training."""
        found, findings = self.decode(index)
        refuse(findings, self.source)
        return found

    def read(self, index: int) -> Picture:
        """Image ``index`` and the scaling of its values.

        Raises ImageError, or DataError when its size is not the annotated one.
        """
        from apex_runtime.data.image import read_picture

        record = self.records[index]
        picture = read_picture(record.path)
        height, width = picture.pixels.shape[:2]
        if (height, width) != (record.height, record.width):
            raise DataError(
                f"{record.path}: the image is {width}x{height}, {record.declared} says {record.width}x{record.height}.",
                "Annotate the image as it is shown (EXIF orientation applied), or correct width and height.",
                path=record.path,
            )
        return picture

    def read_image(self, index: int) -> np.ndarray:
        """Image ``index`` as uint8 [h,w,3] RGB. Raises what ``read`` raises."""
        return self.read(index).pixels

    def ground_truth(self) -> dict[str, Any]:
        """The split as a COCO document, for an evaluator: masks as compressed RLE, ids from 1. Made once; not to be changed."""
        if self._truth is None:
            self._truth = self._document()
        return self._truth

    def _document(self) -> dict[str, Any]:
        from apex_runtime.data.ground_truth import coco_document

        return coco_document(self)

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the annotation files with their names, and of the list of images with their sizes in bytes.

        It depends on neither the place of the set nor the order in which a file system lists it; pixels enter by file size only.
        """
        digest = hashlib.sha256()
        digest.update(repr([(category.id, category.name) for category in self.categories]).encode())
        digest.update(self.options.encode())
        for record in sorted(self.records, key=lambda record: record.file_name):
            size = record.path.stat().st_size
            digest.update(f"{record.file_name}\0{record.width}x{record.height}\0{size}\n".encode())
        for path in self.annotation_files():
            digest.update(f"{path.name}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()


def refuse(findings: Findings, path: Path) -> None:
    """Raise DataError when a finding stops a training, naming the first few."""
    message = stopping(findings)
    if message:
        raise DataError(message, PREFLIGHT, path=path)
