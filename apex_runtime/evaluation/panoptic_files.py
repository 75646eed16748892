"""Predictions in COCO's panoptic form (https://cocodataset.org/#format-results): a JSON file and a PNG per image beside it."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from apex_runtime.data.coco.annotations import brief, is_id, is_safe_name
from apex_runtime.data.coco.panoptic import PanopticDataset, Segment
from apex_runtime.data.findings import shown
from apex_runtime.data.image import read_picture
from apex_runtime.errors import DataError, ImageError
from apex_runtime.evaluation.panoptic_quality import PanopticImage, panoptic_quality

_LARGEST_ID = (1 << 24) - 1
_REMEDY = "Write them again in COCO's panoptic form: image_id, file_name of a PNG, segments_info with id and category_id."


class PanopticPredictions:
    """The annotations of a panoptic JSON file by image, checked; the PNGs are read when they are asked for.

    ``pictures`` is the folder of the PNGs (None: the one named like the file, beside it). Raises DataError.
    """

    def __init__(self, file: Path, document: Any, pictures: Path | None = None) -> None:
        self.path = file
        self.pictures = pictures or file.with_suffix("")
        entries = document.get("annotations") if isinstance(document, dict) else None
        if not isinstance(entries, list):
            raise DataError(f"{file}: no list of annotations.", _REMEDY, path=file)
        if not self.pictures.is_dir():
            raise DataError(
                f"{self.pictures}: no folder with the PNGs of {file.name}.", "Name it with --png.", path=self.pictures
            )
        self._images: dict[int, tuple[Path, tuple[Segment, ...]]] = {}
        for place, entry in enumerate(entries, start=1):
            self._add(f"{file}: annotation {place}", entry)

    @property
    def image_ids(self) -> set[int]:
        """The images that have a prediction."""
        return set(self._images)

    @property
    def count(self) -> int:
        """The number of predicted segments."""
        return sum(len(segments) for _, segments in self._images.values())

    def image(self, image_id: int, height: int, width: int) -> PanopticImage:
        """The prediction of one image. Raises DataError when there is none or its PNG cannot be used."""
        if image_id not in self._images:
            raise DataError(f"{self.path.name} has no prediction for it.", "Predict every image of the split.", path=self.path)
        picture, segments = self._images[image_id]
        try:
            pixels = read_picture(picture).pixels.astype(np.int32)
        except ImageError as error:
            raise DataError(error.message, error.remedy, path=picture) from error
        if pixels.shape[:2] != (height, width):
            size = f"{pixels.shape[1]}x{pixels.shape[0]}"
            raise DataError(
                f"{picture} is {size}, its image {width}x{height}.", "Predict at the size of the image.", path=picture
            )
        return PanopticImage(pixels[..., 0] + 256 * pixels[..., 1] + 65536 * pixels[..., 2], segments)

    def _add(self, where: str, entry: Any) -> None:
        image_id = entry.get("image_id") if isinstance(entry, dict) else None
        if not is_id(image_id):
            raise DataError(f"{where}: image_id is {brief(image_id)}, not an integer.", _REMEDY, path=self.path)
        if image_id in self._images:
            raise DataError(f"{where}: image {image_id} is predicted twice.", "Keep one prediction per image.", path=self.path)
        name, infos = entry.get("file_name"), entry.get("segments_info")
        if not is_safe_name(name) or PurePosixPath(name).suffix.lower() != ".png":
            raise DataError(f"{where}: file_name {brief(name)} is no PNG in the folder.", _REMEDY, path=self.path)
        if not os.path.isfile(self.pictures / name):
            raise DataError(f"{where}: {self.pictures / name} not found.", "Copy the PNGs as well.", path=self.pictures / name)
        if not isinstance(infos, list):
            raise DataError(f"{where}: no list segments_info.", _REMEDY, path=self.path)
        segments = tuple(self._segment(where, info) for info in infos)
        if len({segment.segment_id for segment in segments}) < len(segments):
            raise DataError(f"{where}: a segment id appears twice.", _REMEDY, path=self.path)
        self._images[image_id] = self.pictures / name, segments

    def _segment(self, where: str, info: Any) -> Segment:
        segment_id, category_id = (info.get(key) if isinstance(info, dict) else None for key in ("id", "category_id"))
        if not is_id(segment_id) or not 0 < segment_id <= _LARGEST_ID:
            message = f"{where}: segment id {brief(segment_id)} is not an integer from 1 to {_LARGEST_ID}."
            raise DataError(message, _REMEDY, path=self.path)
        if not is_id(category_id):
            raise DataError(f"{where}: category_id {brief(category_id)} is not an integer.", _REMEDY, path=self.path)
        return Segment(segment_id, category_id, False, 0.0)


def quality_of_predictions(truth: PanopticDataset, predictions: PanopticPredictions) -> dict[str, Any]:
    """``panoptic_quality`` of a file. Raises DataError, also when it names images that the truth does not have."""
    strange = predictions.image_ids - {record.image_id for record in truth.records}
    if strange:
        message = f"{predictions.path}: images {shown(sorted(strange))} are not in {truth.source.name}."
        raise DataError(message, "Evaluate on the split that was predicted.", path=predictions.path)
    return panoptic_quality(truth, predictions.image)
