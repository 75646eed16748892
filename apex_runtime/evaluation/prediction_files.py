"""Files of predictions: what ``apex-rt infer`` writes, plain lists of COCO results, and COCO panoptic predictions."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from apex_runtime.data.coco.annotations import brief, is_id
from apex_runtime.data.dataset import ImageRecord, InstanceDataset
from apex_runtime.data.findings import shown
from apex_runtime.errors import DataError, UsageError
from apex_runtime.evaluation.coco_ap import shared_classes
from apex_runtime.evaluation.coco_documents import check_results
from apex_runtime.evaluation.panoptic_files import PanopticPredictions
from apex_runtime.model_info import Category

_Ids = dict[int, int | None]
_EXPECTED = "Expected results.json of apex-rt infer, a list of COCO results, or a COCO panoptic prediction."


@dataclass(frozen=True)
class PredictionFile:
    """A file of predictions in the ids of one data set: COCO ``results``, or ``panoptic`` images.

    ``left_out`` results are of images or classes that the data does not have, ``images_missing`` images of the data are not among
    those that the file lists (0 when it lists none).
    """

    path: Path
    sha256: str
    results: list[dict[str, Any]] = field(default_factory=list)
    panoptic: PanopticPredictions | None = None
    left_out: int = 0
    images_missing: int = 0


def read_predictions(path: Path, dataset: InstanceDataset, pictures: Path | None = None) -> PredictionFile:
    """Read a file of predictions for ``dataset``; ``pictures`` is the folder of the PNGs of a panoptic one.

    A file that names its images and categories, as results.json does, is matched by these names, and what the data does not have
    is left out and counted. Without names the ids must be those of the data. Raises UsageError, DataError.
    """
    raw = _bytes_of(path)
    try:
        document = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON: {error}.", _EXPECTED, path=path) from error
    digest = hashlib.sha256(raw).hexdigest()
    entries = document.get("annotations") if isinstance(document, dict) else document
    if not isinstance(entries, list):
        raise DataError(f"{path}: no predictions in it.", _EXPECTED, path=path)
    if entries and isinstance(entries[0], dict) and "segments_info" in entries[0]:
        return PredictionFile(path, digest, panoptic=PanopticPredictions(path, document, pictures))
    if pictures is not None:
        raise UsageError(f"--png: {path} is no panoptic prediction.", "Leave --png out.", path=pictures)
    names = document if isinstance(document, dict) else {}
    try:
        return _translated(PredictionFile(path, digest, entries), names, dataset)
    except DataError as error:
        raise DataError(f"{path}: {error.message}", error.remedy, path=path) from error


def _bytes_of(path: Path) -> bytes:
    if not path.is_file():
        raise UsageError(f"{path}: file of predictions not found.", _EXPECTED, path=path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).", "Check its permissions.", path=path) from error


def _translated(file: PredictionFile, names: dict[str, Any], dataset: InstanceDataset) -> PredictionFile:
    """The same with the ids of the data set, by the names that the file gives."""
    images = _image_ids(names["images"], dataset) if isinstance(names.get("images"), list) else None
    classes = _class_ids(names["categories"], dataset) if isinstance(names.get("categories"), list) else None
    moved = [_moved(entry, images, classes) for entry in file.results]
    kept = [entry for entry in moved if entry is not None]
    check_results(dataset.ground_truth(), kept, ())
    missing = 0 if images is None else len(dataset) - len(set(images.values()) - {None})
    return PredictionFile(file.path, file.sha256, kept, None, len(moved) - len(kept), missing)


def _moved(entry: Any, images: _Ids | None, classes: _Ids | None) -> dict[str, Any] | None:
    """A result with other ids; None when the data has no such image or class. Whatever else is wrong is left to the checks."""
    if not isinstance(entry, dict):
        return entry
    changed: dict[str, Any] = {}
    for key, ids, where in (("image_id", images, "images"), ("category_id", classes, "categories")):
        value = entry.get(key)
        if ids is None or not is_id(value):
            continue
        if value not in ids:
            raise DataError(f"a result has {key} {value}, which is not in the file's own list of {where}.", _EXPECTED)
        changed[key] = ids[value]
    return None if None in changed.values() else {**entry, **changed}


def _class_ids(entries: list[Any], dataset: InstanceDataset) -> _Ids:
    """The data set's category id of each category id of the file, by name; None where it has none."""
    for entry in entries:
        if not isinstance(entry, dict) or not is_id(entry.get("id")) or not isinstance(entry.get("name"), str):
            raise DataError(f"a category needs an integer id and a name, not {brief(entry)}.", _EXPECTED)
    shared = shared_classes((Category(id=e["id"], name=e["name"]) for e in entries), dataset, "the predictions")
    return {entry["id"]: shared.get(entry["id"]) for entry in entries}


def _image_ids(entries: list[Any], dataset: InstanceDataset) -> _Ids:
    """The data set's image id of each image id of the file; None where the data has no such image."""
    for entry in entries:
        if not isinstance(entry, dict) or not is_id(entry.get("id")) or not isinstance(entry.get("file_name"), str):
            raise DataError(f"an image needs an integer id and a file_name, not {brief(entry)}.", _EXPECTED)
    records = _same_images([str(PurePosixPath(entry["file_name"])) for entry in entries], dataset.records)
    found: _Ids = {}
    for entry, record in zip(entries, records, strict=True):
        if record is not None:
            _check_size(entry, record)
        found[entry["id"]] = None if record is None else record.image_id
    if found and not any(record is not None for record in records):
        message = f"none of its images ({shown(e['file_name'] for e in entries)}) is in {dataset.source}, split {dataset.split}."
        raise DataError(message, "Evaluate on the split that was predicted.")
    return found


def _same_images(names: list[str], records: list[ImageRecord]) -> list[ImageRecord | None]:
    """For each path, the image with the same file_name, else the only one whose place on disk ends so.

    (infer names images from the folder it was given.) Where that finds none at all: the only ones of one name without folders.
    """
    by_name = {str(PurePosixPath(record.file_name)): record for record in records}
    endings = _endings(records)
    found = [by_name.get(name) or endings.get(name) for name in names]
    if not any(found):
        ours, theirs = _unique(by_name), _unique({name: name for name in names})
        bases = [PurePosixPath(name).name for name in names]
        found = [ours.get(base) if base in theirs else None for base in bases]
    return found


def _endings(records: list[ImageRecord]) -> dict[str, ImageRecord | None]:
    """The image whose path ends so, None where several do."""
    found: dict[str, ImageRecord | None] = {}
    for record in records:
        parts = record.path.parts
        for ending in ("/".join(parts[start:]) for start in range(len(parts))):
            found[ending] = None if ending in found else record
    return found


def _unique(by_path: dict[str, Any]) -> dict[str, Any]:
    """By file name without folders, where that is the name of one only."""
    counts = Counter(PurePosixPath(path).name for path in by_path)
    return {PurePosixPath(path).name: value for path, value in by_path.items() if counts[PurePosixPath(path).name] == 1}


def _check_size(entry: dict[str, Any], record: ImageRecord) -> None:
    size = (entry.get("width", record.width), entry.get("height", record.height))
    if size != (record.width, record.height):
        message = f"image {brief(entry['file_name'])} was {size[0]}x{size[1]}, the data says {record.width}x{record.height}."
        raise DataError(message, "Predict the pictures of this data set.")
