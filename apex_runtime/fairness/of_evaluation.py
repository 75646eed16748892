"""The fairness contracts of ``apex-rt eval``: of an engine on a data set, and of a file of predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apex_runtime.evaluation.coco_matching import default_backend
from apex_runtime.fairness.contract import Contract, library_versions, of_engine
from apex_runtime.parity.subjects import identify

if TYPE_CHECKING:
    from apex_runtime.bundle.load import Opened
    from apex_runtime.data.dataset import InstanceDataset

CLOCK = "graph: one call; image: from the file to COCO results, one batch after the other; first batch predicted once before"


def of_evaluated_engine(opened: Opened, engine: str, dataset: InstanceDataset, asked: dict[str, Any]) -> Contract:
    """``asked``: min_score, max_detections, panoptic, batch, threads as the report has them."""
    return of_engine(
        opened,
        precision=identify(engine).precision,
        batch=asked["batch"],
        threads=asked["threads"],
        timed=CLOCK,
        **_of_data(dataset, asked),
    )


def of_predictions(dataset: InstanceDataset, asked: dict[str, Any]) -> Contract:
    """How a file of predictions was made is not known, but for how it was scored."""
    names = ("input", "image_policy", "postprocessing", "precision", "batch", "threads", "device", "timed", "hardware")
    unknown: dict[str, Any] = dict.fromkeys(names)
    return Contract(versions=library_versions(), **unknown, **_of_data(dataset, asked))


def _of_data(dataset: InstanceDataset, asked: dict[str, Any]) -> dict[str, Any]:
    merged = f"; panoptic {asked['panoptic']}" if asked["panoptic"] else ""
    return {
        "data": dataset.fingerprint(),
        "split": dataset.split,
        "images": len(dataset),
        "min_score": asked["min_score"],
        "max_detections": asked["max_detections"],
        "evaluator": default_backend() + merged,
    }
