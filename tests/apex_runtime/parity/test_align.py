"""Alignment by candidate: any order is the same list, the boundary is forgiven within tolerance and nothing else is."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from apex_runtime.parity.align import Alignment, align
from apex_runtime.parity.tolerance import Tolerance

TOLERANCE = Tolerance(atol=1e-3, rtol=0)
IDS = np.array([5, 9, 2, 7])
SCORES = np.array([0.9, 0.8, 0.5, 0.3], np.float32)


def against(ids: list[int], scores: list[float]) -> Alignment:
    return align(IDS, SCORES, np.array(ids), np.array(scores, np.float32), TOLERANCE)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=30, unique=True).flatmap(
        lambda ids: st.permutations(ids).map(lambda p: (ids, p))
    )
)
def test_every_permutation_is_aligned_row_by_row(lists: tuple[list[int], list[int]]) -> None:
    ids, permuted = map(np.array, lists)
    scores = np.linspace(1, 0.1, len(ids))
    found = align(ids, scores, permuted, scores, TOLERANCE)
    assert (found.missing, found.exempt, found.problems) == (0, 0, ())
    assert len(found.reference_rows) == len(ids)
    assert np.array_equal(ids[found.reference_rows], permuted[found.candidate_rows])


def test_a_swap_at_the_boundary_is_exempt() -> None:
    found = against([5, 9, 2, 8], [0.9, 0.8, 0.5, 0.3004])
    assert (len(found.reference_rows), found.exempt, found.missing) == (3, 2, 0)


def test_a_better_candidate_that_the_reference_lacks_is_missing() -> None:
    found = against([5, 9, 2, 8], [0.9, 0.8, 0.5, 0.4])
    assert (found.exempt, found.missing) == (1, 1), "7 may have been pushed out; 8 at 0.4 beats the reference's lowest, 0.3"


def test_a_dropped_good_candidate_is_missing() -> None:
    found = against([5, 2, 7, 1], [0.9, 0.5, 0.3, 0.3])
    assert (found.exempt, found.missing) == (1, 1)


def test_a_list_that_was_not_full_had_no_reason_to_drop_anything() -> None:
    found = against([5, 9, 2, -1], [0.9, 0.8, 0.5, 0.0])
    assert (len(found.reference_rows), found.exempt, found.missing) == (3, 0, 1)


def test_padding_is_not_a_candidate() -> None:
    ids, scores = np.array([4, -1, -1]), np.array([0.9, 0, 0])
    found = align(ids, scores, ids, scores, TOLERANCE)
    assert (len(found.reference_rows), found.missing, found.problems) == (1, 0, ())


def test_a_repeated_candidate_is_a_problem() -> None:
    assert against([5, 5, 2, 7], [0.9, 0.9, 0.5, 0.3]).problems == ("the candidate lists a candidate twice",)


def test_nan_scores_are_never_forgiven() -> None:
    assert against([5, 9, 2, 8], [0.9, 0.8, 0.5, float("nan")]).missing == 2
