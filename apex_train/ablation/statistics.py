"""Paired differences of a few seeds: tests, intervals, and the correction for many comparisons.

The permutation test asks how often differences of these sizes with signs thrown at random have a mean as far from 0; it assumes
only that a difference that means nothing is as likely to be its negative. Its interval is made of the means of all subsets
(Hartigan 1969): between any two neighbours the true mean lies equally often, so that test and interval hold for any number of
seeds. Student's t gets more out of few seeds by the assumption that the differences are normal. Legend: n pairs, R random draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

EXACT_PAIRS = 14  # up to here all signs and subsets are enumerated, beyond they are drawn
_DRAWS = 20_000
_EQUAL = 1e-9  # relative: sums of the same numbers in another order


def permutation_p(differences_n: np.ndarray, seed: int = 0) -> float:
    """Two-sided p of the mean under random signs: exact up to ``EXACT_PAIRS``, else of draws, the observed one among them."""
    pairs = len(differences_n)
    exact = pairs <= EXACT_PAIRS
    signs_Rn = 2.0 * (_all_subsets(pairs) if exact else _drawn_subsets(pairs, seed)) - 1.0
    observed = abs(differences_n.sum())
    extreme = np.abs(signs_Rn @ differences_n) >= observed - _EQUAL * np.abs(differences_n).sum()
    return float(extreme.mean() if exact else (extreme.sum() + 1) / (len(extreme) + 1))


def least_permutation_p(pairs: int) -> float:
    """The smallest p that the permutation test can give, whatever the differences."""
    return 2.0 ** (1 - pairs) if pairs <= EXACT_PAIRS else 1 / (_DRAWS + 1)


def permutation_interval(differences_n: np.ndarray, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Interval of the true mean from the means of subsets; the whole line where so few pairs cannot give the level."""
    pairs = len(differences_n)
    drawn = _all_subsets(pairs)[1:] if pairs <= EXACT_PAIRS else _drawn_subsets(pairs, seed)
    chosen_Rn = drawn[drawn.any(axis=1)]
    means = np.sort(chosen_Rn @ differences_n / chosen_Rn.sum(axis=1))
    outside = math.floor((1 - level) / 2 * (len(means) + 1) + _EQUAL)  # gaps beyond either end
    if outside == 0:
        return -math.inf, math.inf
    return float(means[outside - 1]), float(means[-outside])


def student_p(differences_n: np.ndarray) -> float:
    """Two-sided p of Student's paired test. Differences without any spread are certain: 1 where all are 0, else 0."""
    from scipy.stats import t

    error = _standard_error(differences_n)
    if error == 0:
        return float(not differences_n.any())
    return float(2 * t.sf(abs(differences_n.mean()) / error, len(differences_n) - 1))


def student_interval(differences_n: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Interval of the true mean by Student's t."""
    from scipy.stats import t

    half = float(t.ppf((1 + level) / 2, len(differences_n) - 1)) * _standard_error(differences_n)
    return float(differences_n.mean() - half), float(differences_n.mean() + half)


def bootstrap_mean(differences_n: np.ndarray, level: float = 0.95, samples: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """Interval of the mean over resampled pairs, by quantiles. With few pairs it is too narrow: it is beside the verdict."""
    pairs = len(differences_n)
    picked = np.random.default_rng(seed).integers(0, pairs, (samples, pairs))
    low, high = np.quantile(differences_n[picked].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def effect_size(differences_n: np.ndarray) -> float | None:
    """Mean over standard deviation of the differences, corrected for few pairs (Hedges).

    None where they have no spread, and for two pairs, for which no such correction exists.
    """
    freedom = len(differences_n) - 1
    spread = float(differences_n.std(ddof=1))
    if freedom < 2 or spread <= _EQUAL * float(np.abs(differences_n).max()):
        return None
    correction = 1 - 3 / (4 * freedom - 1)
    return float(differences_n.mean()) / spread * correction


def holm(p_values: Sequence[float]) -> list[float]:
    """p corrected by Holm's step-down, in the given order: rejecting those at most alpha errs once in 1/alpha families."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def _standard_error(differences_n: np.ndarray) -> float:
    """Of the mean; rounding of equal differences is no spread."""
    error = float(differences_n.std(ddof=1)) / math.sqrt(len(differences_n))
    return error if error > _EQUAL * float(np.abs(differences_n).max()) else 0.0


def _all_subsets(pairs: int) -> np.ndarray:
    """Bool [2^n,n], the empty one first."""
    return np.arange(2**pairs)[:, None] >> np.arange(pairs) & 1 == 1


def _drawn_subsets(pairs: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((_DRAWS, pairs)) < 0.5
