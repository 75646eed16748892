"""Task level: left alone, each with its own tiles, do both sides find the same objects, as a user gets them?

Detections of both go through the product's postprocess, in the pixels of the image, and are matched by class and box. Scores move
by rounding, so one of two equal detections may fall below the level from which they count: what only one side has is forgiven
within that reach of the level, and counted as exempt.
"""

from __future__ import annotations

from apex_runtime.detections import Detections
from apex_runtime.errors import BackendError
from apex_runtime.model_info import ModelInfo
from apex_runtime.parity.cases import Case
from apex_runtime.parity.compare import form_problem
from apex_runtime.parity.matching import mask_iou, match_detections
from apex_runtime.parity.outputs import Outputs
from apex_runtime.parity.task_stats import TaskStats
from apex_runtime.parity.tolerance import Rules
from apex_runtime.postprocess.detections import detections_of_image

Sides = tuple[Detections, Detections]  # of the reference, of the candidate
_NEEDED = ("boxes", "scores", "labels", "mask_coefficients", "mask_prototypes", "tile_ids", "tile_levels")


def compare_task(reference: Outputs, candidate: Outputs, case: Case, rules: Rules, info: ModelInfo) -> TaskStats:
    """Two runs of one image, batches of one."""
    sides = both_sides(reference, candidate, case, info, rules.task.min_score - score_reach(rules))
    if isinstance(sides, str):
        return TaskStats(images=1, problems=[sides])
    return compare_detections(*sides, rules)


def both_sides(reference: Outputs, candidate: Outputs, case: Case, info: ModelInfo, min_score: float) -> Sides | str:
    """The detections of two runs of one image, batches of one, in its own pixels; else why there are none to compare."""
    for name in _NEEDED:
        if name not in reference or name not in candidate:
            return f"no detections to compare: {name} is missing"
        problem = form_problem(reference[name], candidate[name])
        if problem:
            return f"no detections to compare: {name} has {problem}"
    found = []
    for side, outputs in (("reference", reference), ("candidate", candidate)):
        first = {name: array[0] if array.ndim else array for name, array in outputs.items()}
        try:
            found.append(detections_of_image(first, case.frame, info, min_score=min_score))
        except BackendError as error:
            return f"no detections of the {side}: {error.message}"
    return found[0], found[1]


def score_reach(rules: Rules) -> float:
    """How far a score at the level may move by rounding."""
    tolerance = rules.slack("scores")
    return tolerance.atol + tolerance.rtol * rules.task.min_score


def compare_detections(reference: Detections, candidate: Detections, rules: Rules) -> TaskStats:
    """The detections of one image, of ``min_score`` less the reach of scores, or more."""
    level, reach = rules.task.min_score, score_reach(rules)
    stats = TaskStats(images=1)
    pairs = match_detections(reference, candidate, rules.task.min_box_iou)
    for pair in pairs:
        scores = float(reference.scores[pair.reference]), float(candidate.scores[pair.candidate])
        if max(scores) >= level:
            stats.box_ious.append(pair.box_iou)
            stats.mask_ious.append(mask_iou(reference.masks[pair.reference], candidate.masks[pair.candidate]))
            stats.score_differences.append(abs(scores[0] - scores[1]))
    matched = {pair.reference for pair in pairs}, {pair.candidate for pair in pairs}
    alone = [_alone(side, rows, level) for side, rows in zip((reference, candidate), matched, strict=True)]
    stats.exempt = sum(score < level + reach for scores in alone for score in scores)
    stats.reference_only, stats.candidate_only = (sum(score >= level + reach for score in scores) for scores in alone)
    return stats


def _alone(side: Detections, matched: set[int], level: float) -> list[float]:
    """Scores that count, of the rows without a partner."""
    return [score for row, score in enumerate(side.scores.tolist()) if row not in matched and score >= level]
