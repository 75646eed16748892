"""What a training step draws for the finer levels of tiles."""

from __future__ import annotations

import numpy as np

from apex_runtime.routing.quadtree import CHILDREN
from apex_train.config import RoutingConfig
from apex_train.engine.schedule import FORCE


def add_finer_levels(
    tiles: int, bonus_BN: np.ndarray, depth: int, config: RoutingConfig, rng: np.random.Generator
) -> tuple[tuple[int, ...], np.ndarray]:
    """K of every level and the bonus float32 over the tiles of all levels, from those of level 0.

    Of the children of the chosen tiles all are looked at with probability ``keep_all``, else a uniform draw from none to all,
    from the first step on: the steps with all tiles are about level 0 here, whose close look would teach nothing where its
    children cover it, and a file serves every number of children, none too. A share ``explore`` of the children is random as
    above.
    """
    counts, parts = [tiles], [bonus_BN]
    for _ in range(1, depth):
        most = CHILDREN * counts[-1]
        counts.append(most if rng.random() < config.keep_all else int(rng.integers(0, most + 1)))
        parts.append(_exploration(len(bonus_BN), CHILDREN * parts[-1].shape[1], counts[-1], most, config.explore, rng))
    return tuple(counts), np.concatenate(parts, axis=1)


def finer_question(tiles: int, count: int, depth: int, rng: np.random.Generator) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Over how many tiles of every level the oracle is asked, at most half of the children, and how many tiles levels have."""
    found, counts = [tiles], [count]
    for _ in range(1, depth):
        found.append(int(rng.integers(1, CHILDREN * found[-1] // 2 + 1)))
        counts.append(CHILDREN * counts[-1])
    return tuple(found), tuple(counts)


def _exploration(images: int, count: int, tiles: int, most: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Bonus float32 [B,N] that forces a few random children into the choice: of the whole level, since nobody knows yet whose
    children stand to be chosen, so many that about ``share * tiles`` are among these."""
    bonus = np.zeros((images, count), np.float32)
    if share > 0 and 0 < tiles < most:
        forced = round(max(1.0, share * tiles) * count / most)
        for row in bonus:
            row[rng.choice(count, min(forced, count), replace=False)] = FORCE
    return bonus
