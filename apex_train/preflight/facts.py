"""What a configuration must fit: sizes of images and objects, how crowded they are, and the classes. No picture is decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apex_runtime.data.dataset import DatasetType, InstanceDataset
from apex_runtime.data.open import open_dataset
from apex_runtime.errors import DataError
from apex_train.preflight.statistics import SplitStatistics
from apex_train.preflight.walk import chosen_splits

Progress = Callable[[int, int], None]  # images that are done, images in all


@dataclass(frozen=True)
class Facts:
    """Measures of a data set.

    ``train`` are the counts of the split that is trained on, ``splits`` the images of every split with the same classes,
    ``fullest`` the most objects of any of their images. Per object of ``train``, float32 [n]: the shorter and the longer side of
    its box as a share of the longer side of its image; ``longest`` is that side of each image in pixels, float32 [m].
    ``errors`` counts what is wrong with the annotations.
    """

    data: Path
    kind: DatasetType
    train: SplitStatistics
    splits: dict[str, int]
    fullest: int
    short_shares: np.ndarray
    long_shares: np.ndarray
    longest: np.ndarray
    errors: int


def measure(data: Path, kind: DatasetType, progress: Progress) -> Facts:
    """Read the annotations of every split. Raises UsageError for no such set, DataError where no object can be read."""
    names = chosen_splits(data, kind, ())
    first = "train" if "train" in names else names[0]
    opened = [open_dataset(data, name, kind, strict=False) for name in [first, *(name for name in names if name != first)]]
    # Panoptic segments beside instances have classes of their own, and are not what this configuration is for.
    datasets = [dataset for dataset in opened if dataset.categories == opened[0].categories]
    total, done = sum(map(len, datasets)), 0
    counts, errors, sides = [], 0, [np.zeros((0, 2), np.float32)]
    for dataset in datasets:
        statistics = SplitStatistics.of(dataset)
        errors += sum(finding.fault.is_error for finding in dataset.findings)
        for index, record in enumerate(dataset.records):
            found, faults = dataset.decode(index)
            errors += sum(finding.fault.is_error for finding in faults)
            statistics.add(record, found)
            if dataset is datasets[0]:
                boxes = found.boxes[~found.crowd]
                sides.append((boxes[:, 2:] - boxes[:, :2]) / max(record.width, record.height))
            done += 1
            progress(done, total)
        counts.append(statistics)
    shares = np.concatenate(sides)
    if not len(shares):
        raise DataError(f"{data}: {first} has no object to measure.", "`apex-train preflight` says what was found.", path=data)
    return Facts(
        data=data,
        kind=kind,
        train=counts[0],
        splits={each.split: len(each.per_image) for each in counts},
        fullest=max(max(each.per_image, default=0) for each in counts),
        short_shares=shares.min(axis=1),
        long_shares=shares.max(axis=1),
        longest=_longest(datasets[0]),
        errors=errors,
    )


def _longest(dataset: InstanceDataset) -> np.ndarray:
    return np.array([max(record.width, record.height) for record in dataset.records], np.float32)
