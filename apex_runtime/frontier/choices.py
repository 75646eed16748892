"""Lines of a frontier that force the engine's tiles: random ones, and those that a truth would choose.

Random tiles of a seed and image are nested: a larger budget keeps the smaller one's. Padding is never chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from apex_runtime.model_info import TileInfo
from apex_runtime.pipeline.predictor import Prepared
from apex_runtime.routing.selection import MAX_BONUS


@dataclass(frozen=True)
class Line:
    """A row of the frontier. ``budget`` as asked; None for what has none. ``seed`` of random tiles; None for their mean."""

    kind: str
    budget: str | None = None
    seed: int | None = None

    def __str__(self) -> str:
        return " ".join(str(part) for part in (self.kind, self.budget, self.seed) if part is not None)


def random_tiles(shown: np.ndarray, tiles: int, seed: int, image_id: int) -> list[int]:
    """``tiles`` of the ids in ``shown``, without repetition."""
    return np.random.default_rng([seed, image_id]).permutation(shown)[:tiles].tolist()


def by_coverage(boxes_G4: np.ndarray, shown: np.ndarray, tiles: TileInfo) -> list[int]:
    """The ids in ``shown``, those first in which most boxes (input pixels) have their centre; of equals, those of which boxes
    cover most; then in the order of ids."""
    side = tiles.tile
    low = np.stack([shown % tiles.cols, shown // tiles.cols], 1)[:, None] * side  # [n,1,2] x, y
    centres = (boxes_G4[:, :2] + boxes_G4[:, 2:]) / 2
    inside = ((centres >= low) & (centres < low + side)).all(2).sum(1)
    common = np.minimum(boxes_G4[:, 2:], low + side) - np.maximum(boxes_G4[:, :2], low)
    covered = np.prod(np.maximum(common, 0), axis=2).sum(1)
    return shown[np.lexsort((shown, -covered, -inside))].tolist()


def forced(prepared: Prepared, choice: Sequence[int]) -> Prepared:
    """The image with a bonus that makes the engine look at exactly these tiles."""
    bonus_N = np.full_like(prepared.bonus_N, -MAX_BONUS)
    bonus_N[list(choice)] = MAX_BONUS
    return Prepared(prepared.image_HW3, bonus_N, prepared.letterbox, prepared.n_content, len(choice))
