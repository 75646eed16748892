"""Which epoch is the best, by one figure that is chosen once per run; and when to stop hoping for a better one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.errors import UsageError

Metric = Literal["mAP_segm", "mAP_bbox", "val_loss"]
MetricWish = Literal["auto", "mAP_segm", "mAP_bbox", "val_loss"]


def choose_metric(wish: MetricWish, val: InstanceDataset | None) -> Metric | None:
    """The figure of the run. auto: AP of masks, else of boxes, else (a val split without objects) the loss; None without val.

    Crowd regions are no truth: evaluation ignores what is found in them. Raises UsageError for a wish that val cannot grant.
    """
    if val is None:
        if wish != "auto":
            raise UsageError(f"train.metric {wish}: the data set has no split val.", "Add one, or leave train.metric at auto.")
        return None
    objects = [val.instances(index) for index in range(len(val))]
    boxes = any((~found.crowd).any() for found in objects)
    masks = any(mask is not None and not crowd for found in objects for mask, crowd in zip(found.masks, found.crowd, strict=True))
    granted: list[Metric] = [*(["mAP_segm"] if masks else []), *(["mAP_bbox"] if boxes else []), "val_loss"]  # type: ignore[list-item]
    if wish == "auto":
        return granted[0]
    if wish not in granted:
        raise UsageError(f"train.metric {wish}: {val.source} has nothing to measure it on.", f"Use {' or '.join(granted)}.")
    return wish


@dataclass
class Selection:
    """Keeps the best value of ``metric`` and how many measurements passed without one better by more than ``min_delta``.

    ``patience`` measurements in a row end the run; 0: never. A value that is not finite, or -1 of an undefined AP, is no value.
    """

    metric: Metric | None
    patience: int = 0
    min_delta: float = 0.0
    best: float | None = None
    best_epoch: int = 0
    reference: float | None = None
    stale: int = 0

    def offer(self, value: float, epoch: int) -> None:
        """Take note of a measurement."""
        usable = math.isfinite(value) and (self.metric == "val_loss" or value >= 0)
        if usable and self._beats(value, self.reference, self.min_delta):
            self.reference, self.stale = value, 0
        else:
            self.stale += 1
        if usable and self._beats(value, self.best, 0.0):
            self.best, self.best_epoch = value, epoch

    def _beats(self, value: float, other: float | None, margin: float) -> bool:
        if other is None:
            return True
        gain = other - value if self.metric == "val_loss" else value - other
        return gain > margin

    @property
    def exhausted(self) -> bool:
        """True when the patience is over."""
        return self.patience > 0 and self.stale >= self.patience

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        kept = ("metric", "best", "best_epoch", "reference", "stale")
        return {name: getattr(self, name) for name in kept}

    def restore(self, state: dict[str, Any]) -> None:
        """From a checkpoint of the same run."""
        for name, value in state.items():
            setattr(self, name, value)
