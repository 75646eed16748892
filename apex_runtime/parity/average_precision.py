"""Average precision of both sides on labelled images, and what the candidate loses. Those images are then the ones compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from apex_runtime.data.dataset import DatasetType, InstanceDataset
from apex_runtime.data.open import open_dataset
from apex_runtime.detections import Detections
from apex_runtime.errors import UsageError
from apex_runtime.evaluation.coco_ap import detection_limit, evaluate_coco, shared_classes
from apex_runtime.evaluation.results import detections_to_results
from apex_runtime.model_info import ModelInfo
from apex_runtime.parity.cases import Case, case_of

MIN_SCORE = 0.001  # as apex-rt eval has it
_FIGURES = {"box": "mAP_bbox", "mask": "mAP_segm"}


@dataclass(frozen=True)
class ApPair:
    """One figure of both sides, as fractions."""

    reference: float
    candidate: float

    @property
    def drop_points(self) -> float:
        """What the candidate loses; a gain is negative."""
        return round((self.reference - self.candidate) * 100, 4)


@dataclass(frozen=True)
class AveragePrecision:
    """COCO's AP of both sides on ``images`` images with ``objects`` objects; None where the labels have none of that kind."""

    images: int
    objects: int
    box: ApPair | None
    mask: ApPair | None

    @property
    def pairs(self) -> list[tuple[str, ApPair]]:
        """The figures that there are, and of what."""
        return [(kind, pair) for kind, pair in (("box", self.box), ("mask", self.mask)) if pair is not None]

    def reasons(self, max_drop: float) -> list[str]:
        """Why this fails when a figure may drop by ``max_drop`` points."""
        return [
            f"{kind} AP drops by {pair.drop_points:.2f} points, from {pair.reference * 100:.2f}; {max_drop:g} are allowed"
            for kind, pair in self.pairs
            if pair.drop_points > max_drop
        ]


@dataclass(frozen=True, eq=False)
class Labels:
    """A split of the labelled set ``path``, or those images of it that are compared: ``indices`` are their places."""

    path: Path
    dataset: InstanceDataset
    indices: tuple[int, ...]

    @classmethod
    def open(cls, data: Path, split: str, kind: DatasetType | None = None, limit: int | None = None) -> Self:
        """At most ``limit`` images, evenly over the split. Raises UsageError, DataError."""
        dataset = open_dataset(data, split, kind)
        count = len(dataset)
        if count == 0:
            raise UsageError(f"--data {data}: the split {split} has no images.", "Name another split.", path=data)
        wanted = count if limit is None else min(limit, count)
        return cls(data, dataset, tuple(int(place) for place in np.linspace(0, count - 1, wanted)))

    def cases(self, info: ModelInfo) -> list[Case]:
        """The images at the model's size. Raises DataError when the model knows none of the classes, ImageError."""
        shared_classes(info.classes, self.dataset, "the model")
        return list(self._cases(info))

    def _cases(self, info: ModelInfo) -> Iterator[Case]:
        for index in self.indices:
            record = self.dataset.records[index]
            yield case_of(self.dataset.read_image(index), record.file_name, info, record.image_id)

    @cached_property
    def image_ids(self) -> frozenset[int]:
        """Of the images that are compared."""
        return frozenset(self.dataset.records[index].image_id for index in self.indices)

    @property
    def objects(self) -> int:
        """How many objects are to be found on them."""
        entries = self.dataset.ground_truth()["annotations"]
        return sum(entry["image_id"] in self.image_ids and not entry["iscrowd"] for entry in entries)


class Scorer:
    """Takes the detections of both sides image by image, and scores them."""

    def __init__(self, labels: Labels, info: ModelInfo) -> None:
        """Raises DataError when the model knows none of the classes."""
        self._labels = labels
        self._ids = shared_classes(info.classes, labels.dataset, "the model")
        self._limit = detection_limit(labels.dataset.ground_truth())
        self._results: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])

    def add(self, case: Case, reference: Detections, candidate: Detections) -> None:
        """The detections of one image of the labels, of ``MIN_SCORE`` or more."""
        assert case.image_id is not None
        for results, found in zip(self._results, (reference, candidate), strict=True):
            entries = detections_to_results(found, case.image_id)[: self._limit]
            results += [e | {"category_id": self._ids[e["category_id"]]} for e in entries if e["category_id"] in self._ids]

    def score(self) -> AveragePrecision:
        """The figures of what was added."""
        truth, ids = self._labels.dataset.ground_truth(), self._labels.image_ids
        reference, candidate = (evaluate_coco(truth, found, max_detections=self._limit, image_ids=ids) for found in self._results)
        pairs = {
            kind: ApPair(reference[figure], candidate[figure]) for kind, figure in _FIGURES.items() if reference[figure] >= 0
        }
        return AveragePrecision(len(ids), self._labels.objects, pairs.get("box"), pairs.get("mask"))
