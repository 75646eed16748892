"""COCO panoptic data sets: a PNG per image in which every pixel names its segment, things and stuff alike.

Format: https://cocodataset.org/#format-data, section 4; the id of a pixel is R + 256 G + 65536 B, 0 is void.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from apex_runtime.data.coco import annotations as parsing
from apex_runtime.data.coco.dataset import locate, usable
from apex_runtime.data.dataset import DatasetType, ImageRecord, InstanceDataset, Instances
from apex_runtime.data.findings import Fault, Finding, Findings
from apex_runtime.data.image import Picture, read_picture
from apex_runtime.data.json_lines import JsonFile
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.errors import DataError, ImageError
from apex_runtime.model_info import Category

_LARGEST_ID = (1 << 24) - 1


class PanopticCategory(NamedTuple):
    """A class of things, which are counted, or of stuff, which is not."""

    category_id: int
    name: str
    is_thing: bool


class Segment(NamedTuple):
    """A region of one image: its id in the PNG, its class, whether it is a crowd, and its area in pixels as declared."""

    segment_id: int
    category_id: int
    is_crowd: bool
    area: float


class _Annotation(NamedTuple):
    place: int  # in the list of annotations
    picture: Path
    segments: tuple[Segment, ...]
    declared: frozenset[int]  # ids of the segments, faulty ones too


def is_panoptic(file: JsonFile) -> bool:
    """Whether the annotations of a COCO file are segments of whole images."""
    return any(isinstance(entry, dict) and "segments_info" in entry for entry in file.values["annotations"][:1])


class PanopticDataset(InstanceDataset):
    """Images and segments of one COCO panoptic file. As instances it gives the things; the stuff is there for an evaluator.

    ``file`` is the path, or the document where it has been read; ``pictures`` is the folder of the PNGs (None: the one named
    like the file, beside it); ``images`` are the folders in which a photo is looked for. With ``images=None`` there are no
    photos: the truth can be evaluated, ``read`` raises DataError. ``panoptic_categories`` are all classes, sorted by id.
    """

    kind: DatasetType = "coco"

    def __init__(
        self, file: Path | JsonFile, pictures: Path | None, images: Sequence[Path] | None, split: str = "", strict: bool = True
    ) -> None:
        self._file = file if isinstance(file, JsonFile) else parsing.read_coco(Path(file))
        self.source = self._file.path
        self.split = split or self.source.stem
        self.findings: Findings = []
        classes = parsing.parse_categories(self._file, self.findings)
        self.panoptic_categories = tuple(
            PanopticCategory(entry["id"], entry["name"], bool(entry.get("isthing", 1))) for entry in classes
        )
        self.categories: tuple[Category, ...] = parsing.as_categories(tuple(e for e in classes if e.get("isthing", 1)))
        self._label_of = {category.id: label for label, category in enumerate(self.categories)}
        sound, declared = parsing.parse_images(self._file, self.findings)
        reader = _Reader(self._file, pictures or _folder_of(self.source), {c.category_id for c in self.panoptic_categories})
        self._annotations = reader.annotations(sound, declared, self.findings)
        self._has_photos = images is not None
        annotated = [image for image in sound.values() if image.image_id in self._annotations]
        self.records: list[ImageRecord] = (
            locate(self._file, annotated, images, self.findings, strict)
            if images is not None
            else self._without_photos(annotated)
        )
        usable(self, strict)

    def _without_photos(self, images: list[parsing.CocoImage]) -> list[ImageRecord]:
        """Records whose path is that of the PNG, the only file there is."""
        return [
            ImageRecord(
                image.image_id,
                image.file_name,
                image.width,
                image.height,
                self._annotations[image.image_id].picture,
                self._file.where("images", image.place),
            )
            for image in images
        ]

    def read(self, index: int) -> Picture:
        """The photo, as in every data set. Raises DataError where there are none."""
        if not self._has_photos:
            raise DataError(f"{self.source}: opened without its images.", "Open it with the folder of images.", path=self.source)
        return super().read(index)

    def segment_map(self, index: int) -> np.ndarray:
        """The segment of every pixel of image ``index``, int32 [h,w], 0 where there is none.

        Raises ImageError for a PNG that cannot be read, DataError when its size is not that of the image.
        """
        found, problem = self._segment_map(index)
        if problem:
            raise DataError(f"{problem}.", "Export the PNG again in the size of the image.", path=self.source)
        return found

    def segments(self, index: int) -> tuple[Segment, ...]:
        """The segments that the file declares for image ``index``."""
        return self._annotations[self.records[index].image_id].segments

    def annotation_files(self) -> list[Path]:
        """The file and its PNGs."""
        return [self.source, *sorted(self._annotations[record.image_id].picture for record in self.records)]

    def decode(self, index: int) -> tuple[Instances, Findings]:
        """The things of image ``index``, boxes and areas those of their masks; and where the PNG and the file disagree."""
        where = self._file.where("annotations", self._annotations[self.records[index].image_id].place)
        try:
            ids, problem = self._segment_map(index)
        except ImageError as error:
            return _instances([], [], []), [Finding(Fault.MALFORMED, where, error.message)]
        if problem:
            return _instances([], [], []), [Finding(Fault.SIZE_MISMATCH, where, problem)]
        problems, masks = self._masks(index, ids)
        things = [(segment, mask) for segment, mask in masks if segment.category_id in self._label_of]
        labels = [self._label_of[segment.category_id] for segment, _ in things]
        found = _instances([mask for _, mask in things], labels, [segment.is_crowd for segment, _ in things])
        return found, [Finding(fault, where, message) for fault, message in problems]

    def _segment_map(self, index: int) -> tuple[np.ndarray, str]:
        record = self.records[index]
        path = self._annotations[record.image_id].picture
        pixels = read_picture(path).pixels.astype(np.int32)
        if pixels.shape[:2] != (record.height, record.width):
            height, width = pixels.shape[:2]
            return pixels[..., 0], f"{path}: the PNG is {width}x{height}, its image {record.width}x{record.height}"
        return pixels[..., 0] + 256 * pixels[..., 1] + 65536 * pixels[..., 2], ""

    def _masks(self, index: int, ids: np.ndarray) -> tuple[list[parsing.Problem], list[tuple[Segment, RoiMask]]]:
        """Each segment that has pixels with its mask; the segments without pixels and the pixels without a segment."""
        _, path, segments, declared = self._annotations[self.records[index].image_id]
        problems: list[parsing.Problem] = []
        masks = []
        for segment in segments:
            mask = _mask_of(ids, segment.segment_id)
            if mask is not None:
                masks.append((segment, mask))
            else:
                problems.append((Fault.EMPTY_MASK, f"segment {segment.segment_id} has no pixel in {path.name}"))
        strange = np.setdiff1d(ids, [0, *declared])
        if strange.size:
            count = int(np.isin(ids, strange).sum())
            text = f"{count} pixels of {path.name} belong to no segment of the file, the first to id {strange[0]}"
            problems.append((Fault.MALFORMED, text))
        return problems, masks


def _folder_of(file: Path) -> Path:
    """The folder named like the file: beside it, or where a set was unpacked beside its ``annotations/``."""
    beside = file.with_suffix("")
    return beside if beside.is_dir() else file.parent.parent / file.stem


def _mask_of(ids: np.ndarray, segment_id: int) -> RoiMask | None:
    bits = ids == segment_id
    rows, columns = np.flatnonzero(bits.any(axis=1)), np.flatnonzero(bits.any(axis=0))
    if rows.size == 0:
        return None
    top, left = int(rows[0]), int(columns[0])
    window = bits[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1]
    return RoiMask(left, top, window.astype(np.uint8))


def _instances(masks: list[RoiMask], labels: list[int], crowd: list[bool]) -> Instances:
    boxes = [(mask.x, mask.y, mask.x + mask.bits.shape[1], mask.y + mask.bits.shape[0]) for mask in masks]
    return Instances(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        masks=list(masks),
        crowd=np.array(crowd, bool),
        areas=np.array([mask.area for mask in masks], np.float32),
    )


class _Reader:
    """Reads the list of annotations: one PNG and its segments per image."""

    def __init__(self, file: JsonFile, pictures: Path, category_ids: set[int]) -> None:
        self._file, self._pictures, self._category_ids = file, pictures, category_ids

    def annotations(self, images: dict[int, parsing.CocoImage], declared: set[int], findings: Findings) -> dict[int, _Annotation]:
        """The sound annotations by image id. An image without one is a finding: its segments are unknown, not absent."""
        sound: dict[int, _Annotation] = {}
        seen: set[int] = set()
        for index, entry in enumerate(self._file.values["annotations"]):
            problem = self._problem(entry, declared, seen)
            if problem is not None:
                parsing.report(findings, self._file, "annotations", index, problem)
            elif entry["image_id"] in images:
                picture = self._pictures / entry["file_name"]
                sound[entry["image_id"]] = _Annotation(index, picture, *self._segments(entry, index, findings))
        for image in images.values():
            if image.image_id not in seen:
                text = f"image {image.image_id} ({parsing.brief(image.file_name)}): no annotation names a PNG for it"
                parsing.report(findings, self._file, "images", image.place, (Fault.MISSING_MASK, text))
        return sound

    def _problem(self, entry: Any, declared: set[int], seen: set[int]) -> parsing.Problem | None:
        image_id = entry.get("image_id") if isinstance(entry, dict) else None
        if not parsing.is_id(image_id) or image_id not in declared:
            return Fault.MALFORMED, f"annotation with an unknown image_id {parsing.brief(image_id)}"
        if image_id in seen:
            return Fault.DUPLICATE_ID, f"image {image_id} is annotated twice"
        seen.add(image_id)
        name = entry.get("file_name")
        if not parsing.is_safe_name(name) or PurePosixPath(name).suffix.lower() != ".png":
            return Fault.MALFORMED, f"image {image_id}: file_name {parsing.brief(name)} is no PNG in the folder"
        if not os.path.isfile(self._pictures / name):
            return Fault.MISSING_MASK, f"image {image_id}: {self._pictures / name} not found"
        if not isinstance(entry.get("segments_info"), list):
            return Fault.MALFORMED, f"image {image_id}: no list segments_info"
        return None

    def _segments(self, entry: dict[str, Any], index: int, findings: Findings) -> tuple[tuple[Segment, ...], frozenset[int]]:
        segments: list[Segment] = []
        seen: set[int] = set()
        for info in entry["segments_info"]:
            problem = self._segment_problem(info, seen)
            if problem is None:
                area = info.get("area")
                area = float(area) if parsing.is_number(area) else 0.0
                segments.append(Segment(info["id"], info["category_id"], bool(info.get("iscrowd")), area))
            else:
                text = f"image {entry['image_id']}: {problem[1]}"
                parsing.report(findings, self._file, "annotations", index, (problem[0], text))
        return tuple(segments), frozenset(seen)

    def _segment_problem(self, info: Any, seen: set[int]) -> parsing.Problem | None:
        segment_id = info.get("id") if isinstance(info, dict) else None
        if not parsing.is_id(segment_id) or not 0 < segment_id <= _LARGEST_ID:
            return Fault.MALFORMED, f"segment id {parsing.brief(segment_id)} is not an integer from 1 to {_LARGEST_ID}"
        if segment_id in seen:
            return Fault.DUPLICATE_ID, f"segment id {segment_id} appears twice"
        seen.add(segment_id)
        category_id = info.get("category_id")
        if not parsing.is_id(category_id) or category_id not in self._category_ids:
            return Fault.UNKNOWN_CLASS, f"segment {segment_id}: unknown category {parsing.brief(category_id)}"
        if info.get("iscrowd") not in (None, 0, 1):
            return Fault.MALFORMED, f"segment {segment_id}: iscrowd is {parsing.brief(info['iscrowd'])}, not 0 or 1"
        return None
