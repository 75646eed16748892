"""Decision level: left to themselves, do both sides choose the same tiles?

Tile keys are utilities rounded to steps of 1/128 (DESIGN rule 3), so a difference of 1e-6 can carry one over a rounding edge and
swap two tiles. Such a swap is explained by the numbers; any other is a fault of the router or of the selection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from apex_runtime.parity.tolerance import Tolerance
from apex_runtime.routing.selection import MAX_UTILITY, STEPS

KEY_STEP = 1 / STEPS

Choice = Literal["equal", "explained", "unexplained"]  # how the tiles of the two sides relate


@dataclass
class Decisions:
    """What both sides chose, over the images of one budget. ``overlaps`` holds |A and B| / K of the real images only."""

    images: int = 0
    equal_sets: int = 0
    equal_orders: int = 0
    unexplained: int = 0
    overlaps: list[float] = field(default_factory=list)
    synthetic_overlaps: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(
        self,
        reference_ids_K: np.ndarray,
        candidate_ids_K: np.ndarray,
        totals_N: np.ndarray,
        slack: float,
        real: bool,
        levels: Sequence[slice] = (slice(None),),
    ) -> Choice:
        """Take in one image and say how its tiles relate. ``totals_N``: the reference's clipped utility plus bonus; ``slack``:
        see ``is_explained``.

        With several levels of tiles the ids are flat numbers over all of them, and ``levels`` says where each lies among them.
        """
        reference, candidate = set(reference_ids_K.tolist()), set(candidate_ids_K.tolist())
        if len(candidate) != len(reference) or len(candidate) != len(candidate_ids_K):
            self.problems.append(f"the candidate chose {candidate_ids_K.tolist()}: not {len(reference)} different tiles")
        self.images += 1
        self.equal_sets += reference == candidate
        self.equal_orders += np.array_equal(reference_ids_K, candidate_ids_K)
        explained = is_explained(reference, candidate, totals_N, slack, levels)
        self.unexplained += not explained
        (self.overlaps if real else self.synthetic_overlaps).append(overlap(reference_ids_K, candidate_ids_K))
        if not explained:
            return "unexplained"
        return "equal" if reference == candidate else "explained"

    def reasons(self, min_overlap: float) -> list[str]:
        """Why the decisions fail; empty when they pass."""
        found = list(dict.fromkeys(self.problems))
        if self.images == 0:
            found.append("nothing was compared")
        if self.unexplained:
            found.append(f"other tiles on {self.unexplained} of {self.images} images, further apart than rounding explains")
        if self.equal_orders < self.equal_sets:
            found.append(f"the same tiles in another order on {self.equal_sets - self.equal_orders} images")
        if self.overlaps and np.mean(self.overlaps) < min_overlap:
            found.append(f"mean overlap of the tiles {np.mean(self.overlaps):.3f}, below {min_overlap}")
        return found


def overlap(reference_ids_K: np.ndarray, candidate_ids_K: np.ndarray) -> float:
    """|A and B| / |A|: the share of the reference's tiles that the candidate chose too."""
    reference = set(reference_ids_K.tolist())
    return len(reference & set(candidate_ids_K.tolist())) / len(reference)


def totals(utilities_N: np.ndarray, bonus_N: np.ndarray) -> np.ndarray:
    """What the selection ranks by before it rounds: float64 [N]."""
    return np.clip(utilities_N.astype(np.float64), -MAX_UTILITY, MAX_UTILITY) + bonus_N.astype(np.float64)


def is_explained(
    reference: set[int], candidate: set[int], totals_N: np.ndarray, slack: float, levels: Sequence[slice] = (slice(None),)
) -> bool:
    """True when every swapped pair lies, for the reference, within one key step plus twice ``slack``.

    Sound: when utilities differ by at most ``slack``, a tile can lose its place to another only if its advantage is at most that.
    A tile id outside the grid and a NaN are never explained. Of several levels the first that differs decides: below it the two
    sides chose among different children.
    """
    lost, gained = sorted(reference - candidate), sorted(candidate - reference)
    if not lost and not gained:
        return True
    if not lost or not gained or min(gained) < 0 or max(gained) >= len(totals_N):
        return False
    numbers = np.arange(len(totals_N))
    for level in map(numbers.__getitem__, levels):
        here = [[tile for tile in side if tile in level] for side in (lost, gained)]
        if any(here):
            lost, gained = here
            break
    if not lost or not gained:
        return False
    advantage = float(totals_N[lost].max() - totals_N[gained].min())
    return advantage <= KEY_STEP + 2 * slack


def utility_slack(utilities_N: np.ndarray, tolerance: Tolerance) -> float:
    """How far a utility may lie from the reference's under ``tolerance``."""
    return tolerance.atol + tolerance.rtol * min(float(np.abs(utilities_N).max()), MAX_UTILITY)
