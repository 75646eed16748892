"""Of lists made by NMS: is a candidate that only one side kept explained by rounding?

NMS is greedy, so one rounding can change a list: two neighbours of almost one score change places, and either survives; an IoU on
the threshold falls on either side of it; what was removed no longer removes its own neighbours. Where the network sees the same
everywhere (a constant image) all of this happens at once. A one-sided candidate is explained when its score lies on an edge of
what enters, or when the other side keeps the box that removed it, and that box in turn is a tie, on the IoU threshold, or
explained itself. Anything else is a fault.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from apex_plugins.decode_nms import settings
from apex_plugins.decode_nms.reference import STRIDES
from apex_runtime.model_info import ModelInfo
from apex_runtime.parity.align import Alignment
from apex_runtime.parity.matching import box_iou
from apex_runtime.parity.tolerance import Tolerance


@dataclass(frozen=True)
class Kept:
    """What one side kept of one image: ids [M], scores [M], labels [M], boxes [M,4]; rows as in the graph's outputs."""

    ids: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray

    @classmethod
    def of(cls, outputs: dict[str, np.ndarray], image: int) -> Kept:
        """From the outputs of a batch."""
        return cls(*(outputs[name][image] for name in ("candidate_ids", "scores", "labels", "boxes")))


@dataclass(frozen=True)
class Slack:
    """How far two equal computations may lie apart: scores, and boxes in pixels."""

    scores: Tolerance
    boxes: Tolerance


@dataclass
class _Side:
    """``one_sided``: rows that the other side lacks; ``explained`` of them grows."""

    kept: Kept
    one_sided: set[int]
    explained: set[int]


def explain_suppression(pairing: Alignment, reference: Kept, candidate: Kept, slack: Slack, info: ModelInfo) -> Alignment:
    """Explained rows of ``lost`` and ``extra`` go from ``missing`` to ``exempt``. Best scores first: causes before effects."""
    rows = (pairing.lost.tolist(), pairing.extra.tolist())
    if pairing.missing == 0:
        return pairing
    sides = [_Side(kept, set(own), set()) for kept, own in zip((reference, candidate), rows, strict=True)]
    todo = [(float(side.kept.scores[row]), at, row) for at, side in enumerate(sides) for row in side.one_sided]
    for _, at, row in sorted(todo, reverse=True):
        own, other = sides[at], sides[1 - at]
        rounding = _at_an_edge(own.kept, other.kept, row, slack, info) or _removed(own, other, row, slack)
        if row in pairing.excused[at] or (rounding and _rightly_kept(own.kept, row, slack)):
            own.explained.add(row)
    exempt = sum(len(side.explained) for side in sides)
    return replace(pairing, exempt=exempt, missing=len(todo) - exempt)


def _rightly_kept(own: Kept, row: int, slack: Slack) -> bool:
    """Whether its own side should have kept it: no better box of its class on that side overlaps it clearly more than allowed."""
    better = (own.labels == own.labels[row]) & (own.ids >= 0) & (own.scores > own.scores[row])
    over = box_iou(own.boxes[row : row + 1], own.boxes)[0] > settings.IOU + _iou_slack(own.boxes[row], slack.boxes)
    return not (better & over).any()


def _at_an_edge(own: Kept, other: Kept, row: int, slack: Slack, info: ModelInfo) -> bool:
    """Of the score threshold; or of its level's best ``PRE_NMS``: then neither side kept what lies clearly below it.

    How many entered cannot be seen in a list, so that of a level with more anchors the worst that was kept is never a fault.
    """
    score = float(own.scores[row])
    reach = _reach(score, slack.scores)
    if score <= settings.MIN_SCORE + reach:
        return True
    first, last = _level(int(own.ids[row]), info)
    if last - first <= settings.PRE_NMS:
        return False
    tails = [kept.scores[(kept.ids >= first) & (kept.ids < last)] for kept in (own, other)]
    return all(len(tail) > 0 and score <= float(tail.min()) + reach for tail in tails)


def _level(candidate: int, info: ModelInfo) -> tuple[int, int]:
    """First and one behind the last anchor of the pyramid level that holds ``candidate``."""
    ends = np.cumsum([(info.input.height // stride) * (info.input.width // stride) for stride in STRIDES])
    at = min(int(np.searchsorted(ends, candidate, side="right")), len(ends) - 1)
    return (int(ends[at - 1]) if at else 0), int(ends[at])


def _removed(own: _Side, other: _Side, row: int, slack: Slack) -> bool:
    """Whether a box that the other side kept removed it there, for a reason that goes back to rounding."""
    box, score, label = own.kept.boxes[row], float(own.kept.scores[row]), own.kept.labels[row]
    reach = _reach(score, slack.scores)
    iou_M = box_iou(box[None], other.kept.boxes)[0]
    edge = _iou_slack(box, slack.boxes)
    able = (
        (other.kept.labels == label)
        & (other.kept.ids >= 0)
        & (other.kept.scores >= score - reach)
        & (iou_M > settings.IOU - edge)
    )
    for at in np.flatnonzero(able).tolist():
        if at not in other.one_sided:
            if iou_M[at] <= settings.IOU + edge:
                return True
        elif at in other.explained or other.kept.scores[at] <= score + reach:
            return True
    return False


def _reach(score: float, tolerance: Tolerance) -> float:
    return tolerance.atol + tolerance.rtol * abs(score)


def _iou_slack(box_4: np.ndarray, tolerance: Tolerance) -> float:
    """To first order, how far an IoU moves when every edge of both boxes moves as far as the tolerance allows."""
    shift = tolerance.atol + tolerance.rtol * float(np.abs(box_4).max())
    return 4 * shift / max(float((box_4[2:] - box_4[:2]).min()), 1.0)
