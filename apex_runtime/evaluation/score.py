"""All figures of the results on one split, whoever predicted them: an engine, a checkpoint or a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apex_runtime.data.coco.panoptic import PanopticDataset
from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.evaluation.bootstrap import bootstrap_interval, matches_of
from apex_runtime.evaluation.coco_ap import IOU_TYPES, per_class, summarise
from apex_runtime.evaluation.coco_matching import CocoEvaluation, run_coco_eval
from apex_runtime.evaluation.panoptic_merge import MAX_OVERLAP, MIN_SCORE, merged
from apex_runtime.evaluation.panoptic_quality import panoptic_quality

_BOOTSTRAPPED = ("mAP", "AP50")


def score_results(
    dataset: InstanceDataset,
    results: Sequence[dict[str, Any]],
    max_detections: int,
    bootstrap: int = 0,
    iou_types: Sequence[str] = IOU_TYPES,
) -> dict[str, Any]:
    """The part of a report that says how good COCO results are.

    ``figures`` (see ``coco_ap.summarise``), ``intervals`` (95 %) when ``bootstrap`` resamples are asked for, a row ``per_class``,
    the number of ``detections``, and ``panoptic``: PQ where the truth is panoptic and there are masks, else None.

    Raises DataError.
    """
    truth = dataset.ground_truth()
    evaluations = [run_coco_eval(truth, results, iou_type, max_detections) for iou_type in iou_types]
    figures: dict[str, float] = {}
    intervals: dict[str, list[float]] = {}
    for evaluation in evaluations:
        figures |= summarise(evaluation)
        if bootstrap and evaluation.objects_K.any():
            intervals |= _intervals(evaluation, bootstrap)
    scores: dict[str, Any] = {"figures": figures, "intervals": intervals}
    scores["per_class"] = per_class(evaluations, {entry["id"]: entry["name"] for entry in truth["categories"]})
    scores["panoptic"] = None
    if isinstance(dataset, PanopticDataset) and "segm" in iou_types:
        scores["panoptic"] = panoptic_quality(dataset, merged(results))
    return scores | {"detections": len(results)}


def panoptic_contract(dataset: InstanceDataset, iou_types: Sequence[str] = IOU_TYPES) -> dict[str, float] | None:
    """The thresholds with which detections are merged to panoptic images, where they are."""
    is_panoptic = isinstance(dataset, PanopticDataset) and "segm" in iou_types
    return {"min_score": MIN_SCORE, "max_overlap": MAX_OVERLAP} if is_panoptic else None


def _intervals(evaluation: CocoEvaluation, samples: int) -> dict[str, list[float]]:
    matches = matches_of(evaluation)
    found = {figure: bootstrap_interval(matches, figure, samples=samples) for figure in _BOOTSTRAPPED}
    return {f"{figure}_{evaluation.iou_type}": [each.low, each.high] for figure, each in found.items()}
