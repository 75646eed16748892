"""What the task level found, added up over images, and whether it passes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from apex_runtime.parity.average_precision import AveragePrecision
from apex_runtime.parity.tolerance import TaskLimits


@dataclass
class TaskStats:
    """What matching the detections of real images found; several add up.

    ``set_aside``: images of which rounding explains that both sides chose other tiles, where tolerances judge. The lists hold a
    number for every matched pair. ``precision``: None without labels.
    """

    images: int = 0
    set_aside: int = 0
    reference_only: int = 0
    candidate_only: int = 0
    exempt: int = 0
    box_ious: list[float] = field(default_factory=list)
    mask_ious: list[float] = field(default_factory=list)
    score_differences: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    precision: AveragePrecision | None = None

    @property
    def matched(self) -> int:
        """Number of pairs."""
        return len(self.box_ious)

    @property
    def match_rate(self) -> float | None:
        """2 * pairs / detections of both sides; None when there are none."""
        both = 2 * self.matched + self.reference_only + self.candidate_only
        return 2 * self.matched / both if both else None

    def add(self, other: TaskStats) -> None:
        """Take in another image. A problem that is already known is not repeated."""
        for name in ("images", "set_aside", "reference_only", "candidate_only", "exempt"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("box_ious", "mask_ious", "score_differences"):
            getattr(self, name).extend(getattr(other, name))
        self.problems.extend(problem for problem in other.problems if problem not in self.problems)

    def reasons(self, limits: TaskLimits) -> list[str]:
        """Why the task level fails; empty when it passes, or when there was nothing to find."""
        found = list(self.problems)
        if self.images == 0:
            found.append("nothing was compared")
        if self.match_rate is not None and self.match_rate < limits.min_match_rate:
            alone = (
                f"{self.matched} pairs, {self.reference_only} only in the reference, {self.candidate_only} only in the candidate"
            )
            found.append(f"match rate {self.match_rate:.4f}, below {limits.min_match_rate:g} ({alone})")
        if self.matched:
            found += self._of_pairs(limits)
        if self.precision is not None:
            found += self.precision.reasons(limits.max_ap_drop)
            if self.match_rate is None and self.precision.objects and not self.set_aside:
                found.append(f"the labels have {self.precision.objects} objects, and neither side detects anything")
        return found

    def _of_pairs(self, limits: TaskLimits) -> list[str]:
        found = []
        for what, values, least in (
            ("box IoU", self.box_ious, limits.min_mean_box_iou),
            ("mask IoU", self.mask_ious, limits.min_mean_mask_iou),
        ):
            if np.mean(values) < least:
                found.append(f"mean {what} {np.mean(values):.4f}, below {least:g} (worst {min(values):.4f})")
        mean, most = np.mean(self.score_differences), limits.max_mean_score_difference
        if mean > most:
            found.append(f"mean |score difference| {mean:.3g}, above {most:g} (largest {max(self.score_differences):.3g})")
        return found

    def verdict(self, limits: TaskLimits) -> str:
        """pass, fail, or empty: there was nothing to find, which proves nothing."""
        if self.reasons(limits):
            return "fail"
        return "empty" if self.match_rate is None else "pass"

    def notes(self, min_score: float) -> list[str]:
        """What decides nothing and should be known; detections counted from ``min_score`` on."""
        if self.match_rate is not None or self.images == 0 or self.problems:
            return []
        aside = f", {self.set_aside} of them set aside for other tiles" if self.set_aside else ""
        return [f"neither side has a detection of {min_score:g} or more on {self.images} images{aside}: nothing was matched"]
