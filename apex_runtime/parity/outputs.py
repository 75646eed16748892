"""Tensor level: every output of two runs of one image, the same tiles forced on both sides, detections aligned by candidate."""

from __future__ import annotations

import numpy as np

from apex_runtime.model_info import ModelInfo, output_names
from apex_runtime.parity.align import align
from apex_runtime.parity.compare import Stats, compare_arrays, form_problem
from apex_runtime.parity.suppression import Kept, Slack, explain_suppression
from apex_runtime.parity.tolerance import Rules
from apex_runtime.routing.selection import MAX_BONUS

ALIGNED = ("boxes", "scores", "labels", "mask_coefficients")
FORCED = ("tile_ids", "tile_levels")  # the same on both sides by tile_bonus, whatever the utilities are

Outputs = dict[str, np.ndarray]


def forcing_bonus(tile_ids_K: np.ndarray, tiles: int) -> np.ndarray:
    """tile_bonus float32 [1,N] under which exactly these K tiles are chosen: +24 on them, -24 on the rest. Flat numbers, where
    there are several levels of tiles."""
    bonus = np.full((1, tiles), -MAX_BONUS, np.float32)
    bonus[0, tile_ids_K] = MAX_BONUS
    return bonus


def compare_outputs(reference: Outputs, candidate: Outputs, rules: Rules, info: ModelInfo) -> dict[str, Stats]:
    """Statistics of every output of DESIGN section 5, for a batch of one image; ``info`` is the passport of both sides."""
    found = {name: _form(name, reference, candidate) for name in output_names(info.tiles.depth)}
    for name in found:
        if name not in (*ALIGNED, "candidate_ids") and not found[name].problems:
            found[name] = compare_arrays(reference[name], candidate[name], rules.tolerance(name))
    _compare_detections(reference, candidate, rules, info, found)
    return found


def _form(name: str, reference: Outputs, candidate: Outputs) -> Stats:
    for side, outputs in (("reference", reference), ("candidate", candidate)):
        if name not in outputs:
            return Stats(problems=[f"missing on the {side}"])
    problem = form_problem(reference[name], candidate[name])
    return Stats(problems=[problem] if problem else [])


def _compare_detections(reference: Outputs, candidate: Outputs, rules: Rules, info: ModelInfo, found: dict[str, Stats]) -> None:
    """Fill in ``candidate_ids`` and the outputs that are aligned by it."""
    if found["candidate_ids"].problems or found["scores"].problems:
        for name in ALIGNED:
            found[name].problems.append("cannot be aligned without candidate_ids and scores")
        return
    pairing = align(
        reference["candidate_ids"][0],
        reference["scores"][0],
        candidate["candidate_ids"][0],
        candidate["scores"][0],
        rules.slack("scores"),
    )
    if info.decode == "nms" and not (found["labels"].problems or found["boxes"].problems):
        slack = Slack(rules.slack("suppressed_scores"), rules.slack("suppressed_boxes"))
        pairing = explain_suppression(pairing, Kept.of(reference, 0), Kept.of(candidate, 0), slack, info)
    found["candidate_ids"] = Stats(
        count=len(pairing.reference_rows) + pairing.exempt + pairing.missing,
        mismatches=pairing.missing,
        exempt=pairing.exempt,
        problems=list(pairing.problems),
    )
    for name in ALIGNED:
        if not found[name].problems:
            rows = reference[name][0, pairing.reference_rows], candidate[name][0, pairing.candidate_rows]
            found[name] = compare_arrays(*rows, rules.tolerance(name))
            found[name].add(
                _unpaired_non_finite(reference[name][0], candidate[name][0], pairing.reference_rows, pairing.candidate_rows)
            )


def _unpaired_non_finite(reference: np.ndarray, candidate: np.ndarray, *paired: np.ndarray) -> Stats:
    """A NaN in a row that has no partner must fail as well."""
    bad = 0
    for array, rows in zip((reference, candidate), paired, strict=True):
        bad += int(np.count_nonzero(~np.isfinite(np.delete(array, rows, axis=0))))
    return Stats(count=bad, mismatches=bad, non_finite=bad)
