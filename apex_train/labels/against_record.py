"""How well the quality finds noise that was planted, and how much of what is missing the model sees. Needs the record of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.detections import Detections
from apex_runtime.postprocess.rle import roi_to_rle
from apex_train.labels.agreement import Agreement
from apex_train.labels.document import annotations_of
from apex_train.labels.planted import Planted, Record
from apex_train.labels.separation import RESAMPLES, separation
from apex_train.pseudo.against_truth import ratio_interval
from apex_train.report.matching import MIN_IOU

PRESENT = ("shifted", "wrong-class", "spurious")  # kinds of wrong annotations that are there to be judged


def against_record(dataset: InstanceDataset, judged: Sequence[Agreement], record: Record, by_mask: bool) -> dict[str, Any]:
    """``kinds``: per kind of noise its number and how well the quality separates it from the rest; ``all`` of them together.

    ``regions``: the share of the unlabelled detections at the place of an object whose annotation is missing or wrong
    (precision), and the share of the missing objects that have one (recall), by IoU 0.5.
    """
    kind_of = {each.id: each.kind for each in record.planted}
    entries = annotations_of(dataset)
    quality, kinds, places = [], [], []
    for place, (image, found) in enumerate(zip(dataset.records, judged, strict=True)):
        for entry, value in zip(entries[image.image_id], found.quality.tolist(), strict=True):
            if not entry.get("iscrowd"):
                quality.append(value)
                kinds.append(kind_of.get(entry["id"], ""))
                places.append(place)
    quality_n, kind_n, image_n = np.array(quality), np.array(kinds), np.array(places, np.int64)

    def told(kind: str, wrong_n: np.ndarray) -> dict[str, Any]:
        kept_n = wrong_n | (kind_n == "")
        apart = separation(quality_n[kept_n], wrong_n[kept_n], image_n[kept_n], len(judged))
        return {"kind": kind, "annotations": int(wrong_n.sum()), "auc": apart}

    rows = [told("all", kind_n != ""), *(told(kind, kind_n == kind) for kind in PRESENT)]
    return {"resamples": RESAMPLES, "kinds": rows, "regions": _regions(dataset, judged, record, by_mask)}


def _regions(dataset: InstanceDataset, judged: Sequence[Agreement], record: Record, by_mask: bool) -> dict[str, Any]:
    planted = defaultdict(list)
    for each in record.planted:
        if each.before is not None:
            planted[each.image_id].append(each)
    rows = [
        _counts(found.unlabelled, planted[image.image_id], by_mask) for image, found in zip(dataset.records, judged, strict=True)
    ]
    right_I, regions_I, seen_I, missing_I = np.array(rows, np.int64).reshape(-1, 4).T
    return {
        "regions": int(regions_I.sum()),
        "missing": int(missing_I.sum()),
        "precision": ratio_interval(right_I, regions_I),
        "recall": ratio_interval(seen_I, missing_I),
    }


def _counts(found: Detections, planted: Sequence[Planted], by_mask: bool) -> tuple[int, int, int, int]:
    """Regions that are right, regions, missing objects that have one, missing objects."""
    missing_P = np.array([each.kind == "missing" for each in planted], bool)
    hit_DP = _iou(found, planted, by_mask) >= MIN_IOU
    return int(hit_DP.any(1).sum()), len(found), int(hit_DP[:, missing_P].any(0).sum()), int(missing_P.sum())


def _iou(found: Detections, planted: Sequence[Planted], by_mask: bool) -> np.ndarray:
    from pycocotools import mask as coco_mask

    if not len(found) or not planted:
        return np.zeros((len(found), len(planted)))
    size = found.letterbox.source_height, found.letterbox.source_width
    truths = [each.before for each in planted if each.before is not None]
    if not by_mask:
        mine = np.concatenate([found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2]], axis=1).astype(np.float64)
        return np.asarray(coco_mask.iou(mine, np.array([truth.bbox for truth in truths]), [0] * len(truths)))
    sides = [roi_to_rle(mask, *size) for mask in found.masks], [truth.segmentation for truth in truths]
    return np.asarray(coco_mask.iou(*sides, [0] * len(truths)))
