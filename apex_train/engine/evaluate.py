"""How good the averaged weights are: COCO figures with all tiles, and with none, which tells whether the close look matters."""

from __future__ import annotations

from apex_runtime.data.dataset import InstanceDataset
from apex_train.model.detector import ApexDetector
from apex_train.predictor import TorchSession


def pick_metric(dataset: InstanceDataset) -> str | None:
    """The figure that decides the best epoch, chosen once per run: of masks, else of boxes; None without truth.

    Crowd regions are no truth: evaluation ignores what is found in them.
    """
    objects = [dataset.instances(index) for index in range(len(dataset))]
    if not any((~found.crowd).any() for found in objects):
        return None
    with_mask = any(
        mask is not None and not crowd for found in objects for mask, crowd in zip(found.masks, found.crowd, strict=True)
    )
    return "mAP_segm" if with_mask else "mAP_bbox"


def evaluate_weights(model: ApexDetector, dataset: InstanceDataset, size: int, metric: str) -> dict[str, float]:
    """COCO figures at K = N, plus the same metric at K = 0 as ``<metric>_peripheral``."""
    from apex_runtime.evaluation.coco_ap import evaluate_predictor
    from apex_runtime.pipeline.predictor import Predictor

    kinds = ("bbox", "segm") if metric == "mAP_segm" else ("bbox",)
    figures: dict[str, float] = {}
    for suffix, peripheral_only in (("", False), ("_peripheral", True)):
        session = TorchSession(model, size, size, peripheral_only=peripheral_only)
        report = evaluate_predictor(Predictor(session), dataset, 1.0, iou_types=kinds)
        found = {key: value for key, value in report.items() if key.startswith(("mAP", "AP")) and isinstance(value, float)}
        figures |= {key + suffix: value for key, value in found.items() if not suffix or key == metric}
    return figures
