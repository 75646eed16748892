"""Detections matched to ground truth by pycocotools, faster, and without the traps of its loader.

pycocotools compares every detection with every object in a Python loop: minutes for hundreds of nuclei per image. Here the loop
runs over the pairs that overlap enough; a test holds it equal to the original.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from apex_runtime.errors import DataError


def run_coco_eval(
    ground_truth: dict[str, Any],
    results: Sequence[dict[str, Any]],
    iou_type: str,
    max_detections: int,
    image_ids: Iterable[int] | None = None,
) -> COCOeval:
    """An evaluator that has matched and accumulated: ``iou_type`` is bbox or segm, ``max_detections`` counts per image and class.

    Raises DataError when a result names an image that is not in the ground truth, or lacks the box or mask that is asked for.
    """
    _check_results(ground_truth, results, iou_type)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _index({**ground_truth, "annotations": _truth(ground_truth, iou_type)})
        found = _index({**ground_truth, "annotations": _found(ground_truth, results, iou_type)})
        evaluator = _PairwiseEval(truth, found, iou_type)
        evaluator.params.maxDets = [1, 10, max_detections]
        if image_ids is not None:
            evaluator.params.imgIds = sorted(image_ids)
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator


class _PairwiseEval(COCOeval):
    """COCOeval whose inner loop visits only pairs above the threshold. The matching rule is unchanged."""

    def evaluateImg(self, imgId: int, catId: int, aRng: list[float], maxDet: int) -> dict[str, Any] | None:
        """As in COCOeval: for one image, class and range of areas, which detection takes which object at each threshold."""
        truth, found = self._gts[imgId, catId], self._dts[imgId, catId]
        if not truth and not found:
            return None
        outside = np.array([bool(g["ignore"]) or not aRng[0] <= g["area"] <= aRng[1] for g in truth], bool)
        order = np.argsort(outside, kind="mergesort")
        truth, ignored = [truth[i] for i in order], outside[order]
        best = np.argsort([-d["score"] for d in found], kind="mergesort")[:maxDet]
        found = [found[i] for i in best]
        overlaps = self.ious[imgId, catId]
        overlaps = overlaps[:, order] if len(overlaps) else np.zeros((len(found), len(truth)))
        crowd = [bool(g["iscrowd"]) for g in truth]
        matches = np.array([_match(overlaps, threshold, ignored, crowd) for threshold in self.params.iouThrs], np.int64)
        matches = matches.reshape(len(self.params.iouThrs), len(found))
        taken = matches >= 0
        skipped = np.zeros(matches.shape, bool)
        skipped[taken] = ignored[matches[taken]]
        beyond = np.array([not aRng[0] <= d["area"] <= aRng[1] for d in found], bool)
        return {
            "image_id": imgId,
            "dtScores": [d["score"] for d in found],
            "dtMatches": taken.astype(np.int64),
            "dtIgnore": skipped | (~taken & beyond),
            "gtIgnore": ignored.astype(np.int64),
        }


def _match(overlaps: np.ndarray, threshold: float, ignored: np.ndarray, crowd: list[bool]) -> list[int]:
    """Per detection, best first, the object of largest overlap it takes (-1: none), an ignored one only for want of others."""
    least = min(threshold, 1 - 1e-10)
    matches = [-1] * len(overlaps)
    used: set[int] = set()
    rows, cols = np.nonzero(overlaps >= least)
    for detection in np.unique(rows).tolist():
        best, taken = least, -1
        for gt in cols[rows.searchsorted(detection) : rows.searchsorted(detection, "right")].tolist():
            if gt in used and not crowd[gt]:
                continue
            if taken >= 0 and ignored[gt] and not ignored[taken]:
                break  # ignored ones come last
            if overlaps[detection, gt] >= best:
                best, taken = overlaps[detection, gt], gt
        if taken >= 0:
            matches[detection] = taken
            used.add(taken)
    return matches


def _check_results(ground_truth: dict[str, Any], results: Sequence[dict[str, Any]], iou_type: str) -> None:
    strange = sorted({entry["image_id"] for entry in results} - {entry["id"] for entry in ground_truth["images"]})
    if strange:
        message = f"results name images that are not in the ground truth: {strange[:3]}."
        raise DataError(message, "Evaluate on the set that was predicted.")
    field = "segmentation" if iou_type == "segm" else "bbox"
    lacking = sum(1 for entry in results if not entry.get(field))
    if lacking:
        raise DataError(f"{lacking} of {len(results)} results have no {field}.", f"{iou_type} figures need one in every result.")


def _index(dataset: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco


def _truth(ground_truth: dict[str, Any], iou_type: str) -> list[dict[str, Any]]:
    """Annotations as COCOeval needs them: copies, with area and iscrowd.

    For masks, an object that has none becomes an ignored region of its box: what is found there counts neither way.
    """
    prepared = []
    for entry in ground_truth["annotations"]:
        annotation = {"iscrowd": 0, **entry}
        annotation.setdefault("area", entry["bbox"][2] * entry["bbox"][3])
        if iou_type == "segm" and isinstance(entry.get("segmentation") or [], list):
            parts = [part for part in entry.get("segmentation") or [] if len(part) >= 6]
            annotation["segmentation"] = parts or [_rectangle(entry["bbox"])]
            annotation["iscrowd"] = annotation["iscrowd"] if parts else 1
        prepared.append(annotation)
    return prepared


def _found(ground_truth: dict[str, Any], results: Sequence[dict[str, Any]], iou_type: str) -> list[dict[str, Any]]:
    """Results as annotations. The area is that of the box where there is one, for masks too: so it is in ``COCO.loadRes``."""
    sizes = {entry["id"]: (entry["height"], entry["width"]) for entry in ground_truth["images"]}
    prepared = []
    for number, entry in enumerate(results, start=1):
        annotation = {**entry, "id": number, "iscrowd": 0}
        if iou_type == "segm":
            mask = entry["segmentation"]
            if isinstance(mask, list):
                mask = coco_mask.merge(coco_mask.frPyObjects(mask, *sizes[entry["image_id"]]))
            annotation["segmentation"] = mask
        box = entry.get("bbox")
        annotation["area"] = box[2] * box[3] if box else float(coco_mask.area(annotation["segmentation"]))
        prepared.append(annotation)
    return prepared


def _rectangle(box: list[float]) -> list[float]:
    x, y, w, h = box
    return [x, y, x + w, y, x + w, y + h, x, y + h]
