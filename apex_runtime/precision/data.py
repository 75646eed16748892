"""The images that a precision pass learns from, and those on which it is judged: the splits of a labelled set, or plain images.

Ranges come from train, choices are made on val, and what is reported is measured on test: a figure from images that had a say
in the graph would flatter it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path, PurePath

import numpy as np

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.data.image import decode_image
from apex_runtime.data.open import Recognised, open_dataset, recognise, split_names
from apex_runtime.data.sources import resolve_sources
from apex_runtime.errors import ImageError, UsageError

IMAGES = 64  # ranges hardly grow after so many


@dataclass(frozen=True, eq=False)
class Image:
    """One image, unread: its name, the file it is in, and ``read`` for its pixels, uint8 [h,w,3] RGB, which raises ImageError.

    ``part`` says which part of the file it is, where it is not all of it.
    """

    name: str
    path: Path
    read: Callable[[], np.ndarray]
    part: str = ""


@dataclass(frozen=True, eq=False)
class Reported:
    """The images of a report: what they are in words, and their labels where they have any, which are then in the same order."""

    origin: str
    items: tuple[Image, ...]
    labels: InstanceDataset | None = None


@dataclass(frozen=True, eq=False)
class PrecisionData:
    """What ``--data`` means. ``calibration``: the images for ranges, at most ``most``. ``recognised`` says why ``source`` is a
    labelled set with these ``splits``; None for plain images."""

    calibration: tuple[Image, ...]
    most: int = IMAGES
    source: Path | None = None
    recognised: Recognised | None = None
    splits: tuple[str, ...] = ()

    @cached_property
    def select(self) -> Reported:
        """The split val, opened when it is first asked for. Raises UsageError for plain images and without such a split."""
        if self.recognised is None:
            name = "the samples" if self.source is None else str(self.source)
            raise UsageError(f"--data: {name} have no labels to choose by.", "Name a COCO, YOLO or satellite set.")
        labels = self._open("val")
        return Reported("the split val", tuple(_items(labels)), labels)

    @cached_property
    def report(self) -> Reported:
        """The split test, or val where there is no test; plain images are those of the calibration again, and say so.

        Opened when it is first asked for. Raises UsageError without either split, DataError.
        """
        if self.recognised is None:
            return Reported("the images of the calibration", self.calibration)
        split = next((name for name in ("test", "val") if name in self.splits), None)
        if split is None:
            message = f"--data {self.source}: neither a split test nor val to compare with fp32 on."
            raise UsageError(message, "Add one, or give --no-report.", path=self.source)
        labels = self._open(split)
        only = "" if labels.split == "test" else " (there is no split test)"
        return Reported(f"the split {labels.split}{only}", tuple(_items(labels)), labels)

    def _open(self, split: str) -> InstanceDataset:
        assert self.source is not None and self.recognised is not None
        return open_dataset(self.source, split, self.recognised.kind)


def precision_data(source: Path | None, images: int = IMAGES) -> PrecisionData:
    """The images of a labelled set (what ``apex-rt eval --data`` opens), of a folder, file, pattern or list, or the samples.

    At most ``images`` are for calibration, evenly over the sorted list: of the split train where there are splits. Faulty labels
    of train do not matter here. Raises UsageError when there are no images or no split train.
    """
    recognised = _recognised(source)
    if source is None or recognised is None:
        from apex_runtime.parity.cases import sample_folder

        files = resolve_sources(str(source if source is not None else sample_folder()))
        plain = [Image(item.relative, item.path, partial(decode_image, item.path)) for item in files]
        return PrecisionData(_spread(plain, images), images, source)
    splits = split_names(source, recognised.kind)
    if "train" not in splits:
        raise UsageError(
            f"--data {source}: no split train in this {recognised.kind} set to calibrate on. "
            f"Splits found: {', '.join(splits) or 'none'}.",
            "Add one, or name images instead of the set, as a pattern like 'folder/*.jpg'.",
            path=source,
        )
    train = _items(open_dataset(source, "train", recognised.kind, strict=False))
    return PrecisionData(_spread(sorted(train, key=lambda item: item.name), images), images, source, recognised, tuple(splits))


def digest(items: Iterable[Image]) -> str:
    """SHA-256 (hex) of the files' bytes in the order of the images, wherever they lie and whatever they are called; of parts of
    files also which. Raises ImageError."""
    whole = hashlib.sha256()
    for item in items:
        try:
            with item.path.open("rb") as stream:
                whole.update(hashlib.file_digest(stream, "sha256").digest() + item.part.encode() + b"\0")
        except OSError as error:
            cause = f"{item.path}: cannot be read ({error.strerror or error})."
            raise ImageError(cause, "Check the path and its permissions.", path=item.path) from error
    return whole.hexdigest()


def _recognised(source: Path | None) -> Recognised | None:
    """None for what is no labelled set: whether it is images is for others to say."""
    if source is None or not source.exists():
        return None
    try:
        return recognise(source)
    except UsageError:
        return None


def _items(dataset: InstanceDataset) -> list[Image]:
    """A window of a scene bears another name than the scene's file."""
    return [
        Image(
            record.file_name,
            record.path,
            partial(dataset.read_image, index),
            "" if PurePath(record.file_name).name == record.path.name else record.file_name,
        )
        for index, record in enumerate(dataset.records)
    ]


def _spread(items: Sequence[Image], wanted: int) -> tuple[Image, ...]:
    places = np.linspace(0, len(items) - 1, min(wanted, len(items)))
    return tuple(items[int(place)] for place in places)
