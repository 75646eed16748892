"""Requests to a session of the tiny model, and the comparison of what comes back."""

from __future__ import annotations

import numpy as np
from pictures import discs


def feeds_of(batch: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images with something in them, and a bonus that forces a tile."""
    rng = np.random.default_rng(seed)
    images = np.stack([discs(128, 128, (*rng.integers(20, 108, 2), 11)) for _ in range(batch)])
    bonus = np.zeros((batch, 16), np.float32)
    bonus[:, rng.integers(16)] = 24
    return images, bonus


def request_of(batch: int = 1, tiles: int = 4) -> tuple[np.ndarray, int, np.ndarray]:
    """The arguments of ``Session.run``."""
    images, bonus = feeds_of(batch)
    return images, tiles, bonus


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    """Every output, bit by bit, in the same order."""
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
