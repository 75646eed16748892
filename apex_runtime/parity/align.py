"""Which detection of one side is which of the other: by anchor (``candidate_ids``), since near-equal scores may change places.

A graph keeps the M best candidates. At the edge of that list two candidates of almost the same score may swap, so that one side
keeps what the other drops. That is no fault as long as the dropped one's score is within tolerance of the lowest score kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from apex_runtime.parity.tolerance import Tolerance

PADDING = -1  # candidate id of an empty place at the end of a list


@dataclass(frozen=True)
class Alignment:
    """Rows of the two lists that are the same candidate, and what has no partner.

    ``reference_rows`` and ``candidate_rows`` are int64 [n]; ``exempt`` counts the boundary cases, ``missing`` the faults.
    ``lost`` are the rows of the reference that the candidate lacks, ``extra`` the other way round, ``excused`` the boundary cases
    among either.
    """

    reference_rows: np.ndarray
    candidate_rows: np.ndarray
    exempt: int
    missing: int
    problems: tuple[str, ...] = ()
    lost: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    extra: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    excused: tuple[frozenset[int], frozenset[int]] = (frozenset(), frozenset())


def align(
    reference_ids_M: np.ndarray,
    reference_scores_M: np.ndarray,
    candidate_ids_M: np.ndarray,
    candidate_scores_M: np.ndarray,
    tolerance: Tolerance,
) -> Alignment:
    """Align two lists of detections of one image by candidate id; ``tolerance`` is that of the scores."""
    reference, candidate = _real_rows(reference_ids_M), _real_rows(candidate_ids_M)
    problems = [
        f"the {side} lists a candidate twice"
        for side, ids in (("reference", reference_ids_M[reference]), ("candidate", candidate_ids_M[candidate]))
        if len(np.unique(ids)) != len(ids)
    ]
    _, at_reference, at_candidate = np.intersect1d(reference_ids_M[reference], candidate_ids_M[candidate], return_indices=True)
    lost = np.delete(reference, at_reference)
    extra = np.delete(candidate, at_candidate)
    excused = (
        _excused(lost, reference_scores_M, candidate_ids_M, candidate_scores_M, tolerance),
        _excused(extra, candidate_scores_M, reference_ids_M, reference_scores_M, tolerance),
    )
    exempt = len(excused[0]) + len(excused[1])
    missing = len(lost) + len(extra) - exempt
    if problems:  # a repeated id pairs once only, so its other rows were counted above as if they were missing
        missing = 0
    rows = reference[at_reference], candidate[at_candidate]
    return Alignment(*rows, exempt, missing, tuple(problems), lost, extra, excused)


def _real_rows(ids_M: np.ndarray) -> np.ndarray:
    return np.flatnonzero(ids_M != PADDING)


def _excused(
    rows_n: np.ndarray, scores_M: np.ndarray, other_ids_M: np.ndarray, other_scores_M: np.ndarray, tolerance: Tolerance
) -> frozenset[int]:
    """Which rows the other side dropped rightly: it was full, and they do not beat its lowest score beyond tolerance."""
    if len(rows_n) == 0 or np.any(other_ids_M == PADDING):
        return frozenset()
    lowest = float(other_scores_M.min())
    return frozenset(rows_n[scores_M[rows_n] <= lowest + tolerance.atol + tolerance.rtol * abs(lowest)].tolist())
