"""What changes from step to step: the learning rate and the number of tiles."""

from __future__ import annotations

import math

import numpy as np

from apex_train.config import RoutingConfig

FORCE = 24.0  # the bonus that decides a selection whatever the utility (DESIGN rule 4)


def rate_factor(step: int, total: int, warmup: int, final: float) -> float:
    """Factor on the learning rate: linear warm-up, then half a cosine down to ``final``."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def draw_tiles(step: int, total: int, count: int, config: RoutingConfig, rng: np.random.Generator) -> int:
    """K of this step: all tiles while the close look is being learned, later a mixture (``RoutingConfig``)."""
    if step < config.all_tiles * total or rng.random() < config.keep_all:
        return count
    return int(rng.integers(max(1, math.ceil(config.min_share * count)), count + 1))


def exploration_bonus(images: int, count: int, tiles: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Bonus float32 [B,N] that forces a few random tiles per image into the choice, so that the router hears about them."""
    bonus = np.zeros((images, count), np.float32)
    forced = max(1, round(share * tiles)) if share > 0 else 0
    if tiles < count and forced:
        for row in bonus:
            row[rng.choice(count, forced, replace=False)] = FORCE
    return bonus
