"""The ratio of signal to noise against its formula written out in NumPy, and what it decides."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from apex_runtime.parity.compare import Stats, compare_arrays

SHAPES = arrays.array_shapes(min_dims=1, max_dims=3, max_side=6)
VALUES = st.floats(-1e4, 1e4, width=32).filter(lambda value: value == 0 or abs(value) > 1e-4)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """A reference that is not all zero, and a candidate that differs from it."""
    shape = draw(SHAPES)
    reference, candidate = (draw(arrays.arrays(np.float32, shape, elements=VALUES)) for _ in range(2))
    assume(np.any(reference != candidate) and np.any(reference))
    return reference, candidate


def formula(reference: np.ndarray, candidate: np.ndarray) -> float:
    wanted, got = reference.astype(np.float64).ravel(), candidate.astype(np.float64).ravel()
    return float(20 * np.log10(np.linalg.norm(wanted) / np.linalg.norm(wanted - got)))


@settings(max_examples=60, deadline=None)
@given(pairs())
def test_it_is_the_formula(pair: tuple[np.ndarray, np.ndarray]) -> None:
    assert compare_arrays(*pair, None).sqnr_db == pytest.approx(formula(*pair), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(pairs(), st.integers(0, 5))
def test_parts_add_up_to_the_whole(pair: tuple[np.ndarray, np.ndarray], cut: int) -> None:
    reference, candidate = (array.reshape(-1) for array in pair)
    total = Stats()
    for part in (slice(None, cut), slice(cut, None)):
        total.add(compare_arrays(reference[part], candidate[part], None))
    assert total.sqnr_db == pytest.approx(formula(reference, candidate), abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(pairs(), st.floats(0.25, 4.0))
def test_it_knows_no_unit(pair: tuple[np.ndarray, np.ndarray], factor: float) -> None:
    reference, candidate = (array.astype(np.float64) for array in pair)
    scaled = compare_arrays(reference * factor, candidate * factor, None).sqnr_db
    assert scaled == pytest.approx(compare_arrays(reference, candidate, None).sqnr_db, abs=1e-6)


def test_large_values_do_not_lose_small_ones() -> None:
    """Sums of float32 would: the noise of the thousand small values is 1e-8 of the square of the large one."""
    reference = np.array([1e4, *[1.0] * 1000], np.float32)
    candidate = np.array([1e4, *[1.25] * 1000], np.float32)
    assert compare_arrays(reference, candidate, None).sqnr_db == pytest.approx(10 * math.log10((1e8 + 1000) / 62.5), abs=1e-9)


def test_without_noise_it_is_infinite_and_without_signal_minus_infinite() -> None:
    zeros, ones = np.zeros(3, np.float32), np.ones(3, np.float32)
    assert compare_arrays(ones, ones, None).sqnr_db == math.inf == compare_arrays(zeros, zeros, None).sqnr_db
    assert compare_arrays(zeros, ones, None).sqnr_db == -math.inf
    assert compare_arrays(zeros, ones, None).reasons(0.0, -1000.0), "noise without a signal fails under any number"


@settings(max_examples=40, deadline=None)
@given(pairs(), st.floats(0.01, 20))
def test_it_decides(pair: tuple[np.ndarray, np.ndarray], margin: float) -> None:
    stats, found = compare_arrays(*pair, None), formula(*pair)
    assert stats.reasons(0.0, found - margin) == []
    (reason,) = stats.reasons(0.0, found + margin)
    assert reason.startswith(f"signal to noise {stats.sqnr_db:.1f} dB, below")
    assert stats.reasons(0.0) == [], "without a tolerance and without a ratio nothing is asked for"


@settings(max_examples=30, deadline=None)
@given(pairs(), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_a_value_that_is_not_finite_fails_and_is_left_out_of_the_ratio(pair: tuple[np.ndarray, np.ndarray], value: float) -> None:
    reference, candidate = (np.append(array, np.float32(1)) for array in pair)
    candidate[-1] = value
    stats = compare_arrays(reference, candidate, None)
    assert stats.sqnr_db == pytest.approx(formula(*pair), abs=1e-6)
    assert stats.reasons(0.99, -1000.0) == ["1 NaN or Inf values"]


def test_nothing_compared_fails_though_it_has_no_noise() -> None:
    empty = np.zeros((0, 4), np.float32)
    assert compare_arrays(empty, empty, None).reasons(0.0, 1.0) == ["nothing was compared"]


def test_integers_have_no_ratio_and_must_be_equal() -> None:
    stats = compare_arrays(np.array([1, 2, 3]), np.array([1, 2, 4]), None)
    assert (stats.mismatches, stats.signal, stats.noise) == (1, 0, 0)


def test_of_an_image_that_is_not_judged_only_what_always_fails_is_kept() -> None:
    bad = compare_arrays(np.array([1.0, 2.0, np.nan]), np.array([9.0, 2.0, 1.0]), None)
    bad.problems.append("the candidate lists a candidate twice")
    kept = bad.beyond_judgement()
    assert (kept.count, kept.mismatches, kept.non_finite, kept.signal, kept.noise) == (1, 1, 1, 0, 0)
    assert kept.reasons(0.0, 10.0) == ["the candidate lists a candidate twice", "1 NaN or Inf values"]
    assert compare_arrays(np.ones(3), np.zeros(3), None).beyond_judgement().reasons(0.0) == ["nothing was compared"]
