"""Tiles that stay: hysteresis between the frames of a clip, and how often tiles changed.

A tile that was looked at in the frame before loses its place to one that is more useful by ``bonus``, not sooner: ``bonus`` is
on - off, the distance of two thresholds. It is added to the selection key (``selection.py``) as every ``tile_bonus`` is, so
exactly K tiles are looked at, whatever it is.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence

import numpy as np

from apex_runtime.routing.selection import MAX_BONUS

# docs/video.md: with the shipped engine it leaves less than a third of the flips of each of five clips.
DEFAULT_BONUS = 0.35


def hysteresis_bonus(previous_ids: Collection[int] | np.ndarray, count: int, bonus: float) -> np.ndarray:
    """float32 [N]: ``bonus`` for the tiles of the frame before, 0 for the others; N = ``count``.

    Raises ValueError when an id is not in 0..N-1 or the bonus is not in 0..24.
    """
    if not 0 <= bonus <= MAX_BONUS:
        raise ValueError(f"bonus {bonus} is not in 0..{MAX_BONUS:g}")
    ids = np.array(list(previous_ids), np.int64)
    if ids.size and not (ids.min() >= 0 and ids.max() < count):
        raise ValueError(f"tile ids {ids.min()}..{ids.max()} are not in 0..{count - 1}")
    bonus_N = np.zeros(count, np.float32)
    bonus_N[ids] = bonus
    return bonus_N


def with_hysteresis(padding_N: np.ndarray, previous_ids: Collection[int] | np.ndarray, bonus: float) -> np.ndarray:
    """float32 [N], the graph's ``tile_bonus`` of a frame: ``hysteresis_bonus`` on content, -24 on padding."""
    bonus_N = hysteresis_bonus(previous_ids, len(padding_N), bonus)
    return np.where(padding_N < 0, padding_N, padding_N + bonus_N).astype(np.float32)


class TileMemory:
    """The tiles of the frame before, as long as the frames are of one kind: the same clip, the same grid on the picture."""

    def __init__(self, bonus: float) -> None:
        """``bonus`` 0..24; 0 remembers nothing."""
        self.bonus = bonus
        self._kind: Hashable = None
        self._ids: Sequence[int] = ()

    def bonus_for(self, kind: Hashable, padding_N: np.ndarray) -> np.ndarray:
        """float32 [N], the ``tile_bonus`` of the next frame, given its ``padding_bonus``."""
        return with_hysteresis(padding_N, self._ids if kind == self._kind else (), self.bonus)

    def remember(self, kind: Hashable, ids: Sequence[int]) -> None:
        """``ids`` were looked at in the frame that was done last."""
        self._kind, self._ids = kind, ids


class FlipCounter:
    """Counts over consecutive frames how many of the tiles looked at had not been looked at in the frame before.

    With T frames of K tiles each the flip rate is flips / ((T - 1) K): of the close looks from the second frame on, the share at
    tiles which had none in the frame before. It lies in 0..1. While K is constant every flip is one tile switched on and another
    switched off.
    """

    def __init__(self) -> None:
        self.frames = 0
        self._tiles = 0
        self._flips = 0
        self._compared = 0
        self._before: frozenset[int] | None = None

    def add(self, ids: Collection[int], follows: bool = True) -> None:
        """The tiles of the next frame; ``follows`` False: it does not follow the frame before, and is compared with none."""
        now = frozenset(ids)
        if follows and self._before is not None:
            self._flips += len(now - self._before)
            self._compared += len(now)
        self.frames += 1
        self._tiles += len(now)
        self._before = now

    def merge(self, other: FlipCounter) -> None:
        """Add the counts of another clip."""
        self.frames += other.frames
        self._tiles += other._tiles
        self._flips += other._flips
        self._compared += other._compared
        self._before = None

    @property
    def flip_rate(self) -> float | None:
        """0..1; None when no two frames follow each other."""
        return self._flips / self._compared if self._compared else None

    @property
    def consistency(self) -> float | None:
        """1 - flip rate."""
        return None if self.flip_rate is None else 1.0 - self.flip_rate

    @property
    def mean_tiles(self) -> float:
        """Tiles looked at per frame; 0 without frames."""
        return self._tiles / self.frames if self.frames else 0.0
