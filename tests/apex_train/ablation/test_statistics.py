"""The tests and intervals against SciPy, against their definition by enumeration, and against what they promise."""

import itertools

import numpy as np
import pytest
from scipy import stats

from apex_train.ablation.statistics import (
    EXACT_PAIRS,
    bootstrap_mean,
    effect_size,
    holm,
    least_permutation_p,
    permutation_interval,
    permutation_p,
    student_interval,
    student_p,
)

DRAWN = [np.random.default_rng(seed).normal(0.4, 1.0, pairs) for seed, pairs in enumerate([2, 3, 5, 6, 8, 10, 12])]


@pytest.mark.parametrize("differences", DRAWN, ids=len)
def test_the_permutation_test_is_its_definition(differences: np.ndarray) -> None:
    flipped = [np.dot(signs, differences) for signs in itertools.product([-1, 1], repeat=len(differences))]
    expected = np.mean([abs(value) >= abs(differences.sum()) - 1e-12 for value in flipped])
    assert permutation_p(differences) == pytest.approx(expected)


@pytest.mark.parametrize("differences", DRAWN, ids=len)
def test_the_permutation_test_is_scipys(differences: np.ndarray) -> None:
    other = stats.permutation_test(
        (differences, np.zeros_like(differences)),
        lambda first, second, axis: np.mean(first - second, axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    assert permutation_p(differences) == pytest.approx(other.pvalue)


def test_beyond_the_enumeration_draws_come_close_to_all_signs() -> None:
    differences = np.random.default_rng(3).normal(0.35, 1, EXACT_PAIRS + 2)
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=len(differences))))
    expected = np.mean(np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12)
    assert permutation_p(differences) == pytest.approx(expected, abs=0.01)
    assert 0.01 < expected < 0.9


@pytest.mark.parametrize("pairs", [2, 3, 6, EXACT_PAIRS, EXACT_PAIRS + 10])
def test_no_p_is_below_the_least(pairs: int) -> None:
    assert permutation_p(np.linspace(1, 2, pairs)) == pytest.approx(least_permutation_p(pairs), abs=1e-4)


@pytest.mark.parametrize("differences", DRAWN, ids=len)
def test_students_test_and_interval_are_scipys(differences: np.ndarray) -> None:
    other = stats.ttest_1samp(differences, 0.0)
    assert student_p(differences) == pytest.approx(other.pvalue)
    assert student_interval(differences) == pytest.approx(tuple(other.confidence_interval(0.95)))


def test_equal_differences_are_certain_and_none_is_no_difference() -> None:
    assert student_p(np.zeros(4)) == permutation_p(np.zeros(4)) == 1.0
    assert student_p(np.full(4, 0.1)) == 0.0
    assert effect_size(np.full(4, 0.1)) is None


@pytest.mark.parametrize("pairs", [6, 7, 9])
def test_the_permutation_interval_holds_what_the_test_does_not_reject(pairs: int) -> None:
    """The test of a shift just inside an end is no rejection; just outside it is one."""
    differences = np.random.default_rng(pairs).normal(1, 1, pairs)
    low, high = permutation_interval(differences)
    for end, outwards in ((low, -1e-6), (high, 1e-6)):
        assert permutation_p(differences - (end + outwards)) <= 0.05
        assert permutation_p(differences - (end - outwards)) > 0.05


def test_too_few_pairs_bound_nothing() -> None:
    assert permutation_interval(np.array([1.0, 1.1, 0.9])) == (-np.inf, np.inf)


@pytest.mark.parametrize("interval", [permutation_interval, student_interval])
def test_an_interval_misses_the_truth_as_rarely_as_it_says(interval) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(11)
    repeats = 2000
    held = sum(low <= 0.7 <= high for low, high in (interval(rng.normal(0.7, 1.3, 7)) for _ in range(repeats)))
    assert 0.935 <= held / repeats <= 0.985  # of the subsets of seven: 1 - 6/128 = 0.953


def test_the_bootstrap_is_scipys() -> None:
    differences = np.random.default_rng(5).normal(0.2, 1, 20)
    other = stats.bootstrap((differences,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(1))
    assert bootstrap_mean(differences) == pytest.approx(tuple(other.confidence_interval), abs=0.03)


def test_the_effect_size_is_without_bias() -> None:
    rng = np.random.default_rng(2)
    sizes = [effect_size(rng.normal(0.8, 1.0, 6)) for _ in range(4000)]
    assert np.mean([size for size in sizes if size is not None]) == pytest.approx(0.8, abs=0.03)


def test_two_pairs_have_no_effect_size() -> None:
    assert effect_size(np.array([0.1, 0.3])) is None


def test_holm_is_the_published_example() -> None:
    """Step-down by hand: 0.01*4, 0.013*3 (kept at 0.04), 0.03*2, 0.04."""
    assert holm([0.04, 0.01, 0.03, 0.013]) == pytest.approx([0.06, 0.04, 0.06, 0.04])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_is_the_closed_test_of_bonferroni() -> None:
    """Its corrected p is the largest Bonferroni p of all families that hold the hypothesis."""
    p_values = np.random.default_rng(4).random(6) ** 3
    subsets = [members for size in range(1, 7) for members in itertools.combinations(range(6), size)]
    for index, corrected in enumerate(holm(p_values.tolist())):
        families = [members for members in subsets if index in members]
        assert corrected == pytest.approx(max(min(1, len(m) * p_values[list(m)].min()) for m in families))
