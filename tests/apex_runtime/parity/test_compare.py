"""The comparison core against a plain reading of its definition, value by value."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from apex_runtime.parity.compare import Stats, compare_arrays
from apex_runtime.parity.tolerance import Tolerance

EXACT = Tolerance(atol=0, rtol=0)
SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, max_side=5)
FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)


@st.composite
def pairs(draw: st.DrawFn, elements: st.SearchStrategy = FLOATS) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(SHAPES)
    return tuple(draw(arrays.arrays(np.float32, shape, elements=elements)) for _ in range(2))  # type: ignore[return-value]


@settings(max_examples=60, deadline=None)
@given(pairs(), st.floats(0, 10), st.floats(0, 1))
def test_it_is_the_definition(pair: tuple[np.ndarray, np.ndarray], atol: float, rtol: float) -> None:
    reference, candidate = pair
    stats = compare_arrays(reference, candidate, Tolerance(atol=atol, rtol=rtol))
    wrong = bad = 0
    largest = 0.0
    for r, c in zip(map(float, reference.flat), map(float, candidate.flat), strict=True):
        if not (math.isfinite(r) and math.isfinite(c)):
            bad += 1
            continue
        largest = max(largest, abs(c - r))
        wrong += abs(c - r) > atol + rtol * abs(r)
    assert (stats.count, stats.non_finite, stats.mismatches) == (reference.size, bad, wrong + bad)
    assert stats.max_abs == largest
    if bad == 0:
        assert stats.mean_abs == pytest.approx(np.abs(candidate.astype(float) - reference.astype(float)).mean())


@settings(max_examples=30, deadline=None)
@given(arrays.arrays(np.float32, SHAPES, elements=st.floats(-1e6, 1e6, width=32)))
def test_equal_arrays_pass_under_the_strictest_tolerance(array: np.ndarray) -> None:
    assert compare_arrays(array, array.copy(), EXACT).reasons(0.0) == []


@settings(max_examples=30, deadline=None)
@given(arrays.arrays(np.float32, SHAPES, elements=st.floats(-1e3, 1e3, width=32)), st.data())
def test_a_single_non_finite_value_fails_always(array: np.ndarray, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, array.size - 1))
    broken = array.copy()
    broken.flat[at] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    generous = Tolerance(atol=1e9, rtol=1e9)
    for reference, candidate in ((array, broken), (broken, array), (broken, broken)):
        assert compare_arrays(reference, candidate, generous).reasons(0.99)


@settings(max_examples=40, deadline=None)
@given(pairs(st.floats(-100, 100, width=32)), st.integers(1, 4))
def test_parts_add_up_to_the_whole(pair: tuple[np.ndarray, np.ndarray], cut: int) -> None:
    reference, candidate = (array.reshape(-1) for array in pair)
    tolerance = Tolerance(atol=0.1, rtol=0.01)
    whole = compare_arrays(reference, candidate, tolerance)
    sum_of_parts = Stats()
    for part in (slice(None, cut), slice(cut, None)):
        sum_of_parts.add(compare_arrays(reference[part], candidate[part], tolerance))
    assert (sum_of_parts.count, sum_of_parts.mismatches, sum_of_parts.max_abs) == (whole.count, whole.mismatches, whole.max_abs)
    assert sum_of_parts.mean_abs == pytest.approx(whole.mean_abs)


def test_the_edge_of_the_tolerance_belongs_to_it() -> None:
    reference = np.array([8.0], np.float32)
    assert compare_arrays(reference, reference + 0.5, Tolerance(atol=0.25, rtol=1 / 32)).mismatches == 0
    assert compare_arrays(reference, reference + 0.5, Tolerance(atol=0.25, rtol=1 / 33)).mismatches == 1


def test_integers_must_be_equal_whatever_the_tolerance() -> None:
    stats = compare_arrays(np.array([1, 2, 3]), np.array([1, 2, 4]), Tolerance(atol=10, rtol=10))
    assert (stats.mismatches, stats.max_abs) == (1, 1.0)


def test_large_integers_are_not_rounded_together() -> None:
    reference = np.array([2**53], np.int64)
    assert compare_arrays(reference, reference + 1, EXACT).mismatches == 1


@pytest.mark.parametrize(
    ("candidate", "word"),
    [(np.zeros(3, np.float64), "dtype"), (np.zeros((3, 1), np.float32), "shape"), (np.zeros(4, np.float32), "shape")],
)
def test_another_form_is_a_problem(candidate: np.ndarray, word: str) -> None:
    reasons = compare_arrays(np.zeros(3, np.float32), candidate, Tolerance(atol=1, rtol=1)).reasons(0.5)
    assert any(word in reason for reason in reasons)


def test_nothing_compared_fails() -> None:
    empty = np.zeros((0, 4), np.float32)
    assert compare_arrays(empty, empty, EXACT).reasons(1.0) == ["nothing was compared"]
    assert Stats().reasons(1.0) == ["nothing was compared"]


def test_the_limit_is_a_share() -> None:
    stats = Stats(count=1000, mismatches=1, max_abs=1.0)
    assert stats.reasons(0.001) == []
    assert len(stats.reasons(0.0009)) == 1
