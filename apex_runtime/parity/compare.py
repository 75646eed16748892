"""Two arrays side by side: how far apart they are, in float64, and whether that passes. No model in here.

What must never pass: a NaN or an Inf on either side (also where both sides agree), another shape or dtype, nothing to compare.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from apex_runtime.parity.tolerance import Tolerance


@dataclass
class Stats:
    """What the comparison of one output found; several add up. ``count`` is the number of values that were compared.

    ``exempt`` is for candidate_ids: how many of them were forgiven at the boundary of a list. ``signal`` and ``noise`` are sums
    of squares, of the reference and of the difference, over the finite pairs of floats.
    """

    count: int = 0
    mismatches: int = 0
    non_finite: int = 0
    max_abs: float = 0.0
    sum_abs: float = 0.0
    signal: float = 0.0
    noise: float = 0.0
    exempt: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def mean_abs(self) -> float:
        """Mean |candidate - reference| over the finite pairs."""
        finite = self.count - self.non_finite
        return self.sum_abs / finite if finite > 0 else 0.0

    @property
    def ratio(self) -> float:
        """Share of values that mismatch."""
        return self.mismatches / self.count if self.count else 0.0

    @property
    def sqnr_db(self) -> float:
        """Ratio of signal to noise in dB: infinite without any noise, minus infinite where there is noise and no signal."""
        if self.noise == 0:
            return math.inf
        return 10 * (math.log10(self.signal) - math.log10(self.noise)) if self.signal > 0 else -math.inf

    def add(self, other: Stats) -> None:
        """Take in another comparison of the same output. A problem that is already known is not repeated."""
        self.count += other.count
        self.mismatches += other.mismatches
        self.non_finite += other.non_finite
        self.max_abs = max(self.max_abs, other.max_abs)
        self.sum_abs += other.sum_abs
        self.signal += other.signal
        self.noise += other.noise
        self.exempt += other.exempt
        self.problems.extend(problem for problem in other.problems if problem not in self.problems)

    def beyond_judgement(self) -> Stats:
        """What fails on any image, whatever the numbers: another form, a NaN, an Inf."""
        bad = self.non_finite
        return Stats(count=bad, mismatches=bad, non_finite=bad, problems=list(self.problems))

    def reasons(self, limit: float, min_sqnr_db: float | None = None) -> list[str]:
        """Why this output fails when at most the share ``limit`` may mismatch, and where a ratio of signal to noise is asked for,
        that much; empty when it passes."""
        found = list(self.problems)
        if self.non_finite:
            found.append(f"{self.non_finite} NaN or Inf values")
        if self.count == 0:
            found.append("nothing was compared")
        beyond = self.mismatches - self.non_finite
        if beyond > limit * self.count:  # without any difference it is candidates that only one side has
            how = f"beyond the tolerance (max |difference| {self.max_abs:.3g})" if self.max_abs else "on one side only"
            found.append(f"{beyond} of {self.count} values {how}")
        if min_sqnr_db is not None and not self.sqnr_db >= min_sqnr_db:
            found.append(f"signal to noise {self.sqnr_db:.1f} dB, below {min_sqnr_db:g} (max |difference| {self.max_abs:.3g})")
        return found


def form_problem(reference: np.ndarray, candidate: np.ndarray) -> str | None:
    """What differs before any number is looked at: dtype or shape. None when nothing does."""
    if reference.dtype != candidate.dtype:
        return f"dtype {candidate.dtype}, the reference has {reference.dtype}"
    if reference.shape != candidate.shape:
        return f"shape {list(candidate.shape)}, the reference has {list(reference.shape)}"
    return None


def compare_arrays(reference: np.ndarray, candidate: np.ndarray, tolerance: Tolerance | None) -> Stats:
    """Compare two arrays of any shape. Integers and booleans must be equal, whatever the tolerance says; without one, floats
    mismatch only where they are not finite."""
    problem = form_problem(reference, candidate)
    if problem:
        return Stats(problems=[problem])
    finite = np.isfinite(reference) & np.isfinite(candidate)
    wanted = reference[finite].astype(np.float64)
    difference = np.abs(candidate[finite].astype(np.float64) - wanted)
    floats = np.issubdtype(reference.dtype, np.floating)
    if not floats:
        mismatch = reference[finite] != candidate[finite]
    elif tolerance is not None:
        mismatch = difference > tolerance.atol + tolerance.rtol * np.abs(wanted)
    else:
        mismatch = np.zeros(difference.shape, bool)
    non_finite = int(reference.size - np.count_nonzero(finite))
    return Stats(
        count=int(reference.size),
        mismatches=int(np.count_nonzero(mismatch)) + non_finite,
        non_finite=non_finite,
        max_abs=float(difference.max(initial=0.0)),
        sum_abs=float(difference.sum()),
        signal=float(np.square(wanted).sum()) if floats else 0.0,
        noise=float(np.square(difference).sum()) if floats else 0.0,
    )
