"""How right labels are where the truth is known: precision and recall after every step of the choice, with intervals.

Legend: I images, S steps of the choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from apex_runtime.data.dataset import InstanceDataset, Instances
from apex_runtime.evaluation.bootstrap import Interval
from apex_runtime.evaluation.coco_ap import shared_classes
from apex_runtime.model_info import Category
from apex_train.pseudo.choose import STEPS, Judged, Limits
from apex_train.pseudo.views import picked
from apex_train.report.matching import MIN_IOU, match_image

RESAMPLES = 1000


class Tally:
    """Counts hits, false labels and objects of image after image. ``label_of``: the truth's label of one of the model."""

    def __init__(self, limits: Limits, label_of: dict[int, int], by_mask: bool) -> None:
        self._limits, self._label_of, self._by_mask = limits, label_of, by_mask
        self._rows: list[list[tuple[int, int, int]]] = []

    def add(self, judged: Judged, truth: Instances) -> None:
        """Count an image; all labels are of classes that the truth knows."""
        row = []
        for passed_n in judged.passed(self._limits):
            match = match_image(picked(judged.found, np.flatnonzero(passed_n)), truth, self._label_of, self._by_mask)
            row.append((match.hits, match.false, match.objects))
        self._rows.append(row)

    def report(self) -> dict[str, Any]:
        """``overlap`` and ``min_iou`` by which a label is right, ``objects`` of the truth, and a row per step."""
        counts_IS3 = np.array(self._rows, np.int64).reshape(-1, len(STEPS), 3)
        return {
            "overlap": "mask" if self._by_mask else "box",
            "min_iou": MIN_IOU,
            "resamples": RESAMPLES,
            "images": len(counts_IS3),
            "objects": int(counts_IS3[:, 0, 2].sum()),
            "steps": [{"step": step, **_figures(counts_IS3[:, place])} for place, step in enumerate(STEPS)],
        }


def _figures(counts_I3: np.ndarray) -> dict[str, Any]:
    hits_I, false_I, objects_I = counts_I3.T
    return {
        "labels": int((hits_I + false_I).sum()),
        "hits": int(hits_I.sum()),
        "precision": ratio_interval(hits_I, hits_I + false_I),
        "recall": ratio_interval(hits_I, objects_I),
    }


def ratio_interval(part_I: np.ndarray, whole_I: np.ndarray, seed: int = 0) -> dict[str, float] | None:
    """Sum over sum with its 95 % interval over resampled images; None when the whole is nothing."""
    if not whole_I.sum():
        return None
    images = len(whole_I)
    drawn_RI = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=RESAMPLES)
    parts, wholes = drawn_RI @ part_I, drawn_RI @ whole_I
    low, high = np.quantile(parts[wholes > 0] / wholes[wholes > 0], [0.025, 0.975])
    found = Interval(float(low), float(part_I.sum() / whole_I.sum()), float(high))
    return {name: round(value, 4) for name, value in asdict(found).items()}


def labels_in_truth(classes: Sequence[Category], dataset: InstanceDataset) -> dict[int, int]:
    """The label in the data set of each label of a model whose class it knows by name. Raises DataError when there is none."""
    id_of = shared_classes(classes, dataset, "the model")
    label_of = {category.id: label for label, category in enumerate(dataset.categories)}
    return {label: label_of[id_of[each.id]] for label, each in enumerate(classes) if each.id in id_of}


def has_masks(dataset: InstanceDataset) -> bool:
    """Whether labels are held against masks: the first image with an object has one."""
    for index in range(len(dataset)):
        masks = dataset.instances(index).masks
        if masks:
            return any(mask is not None for mask in masks)
    return False
