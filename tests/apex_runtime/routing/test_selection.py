import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apex_runtime.routing.hilbert import hilbert_rank
from apex_runtime.routing.selection import select_tiles, selection_keys


def integer_keys(utilities: np.ndarray, bonus: np.ndarray) -> np.ndarray:
    """The definition in int64. The sum before the rounding is float32 by contract."""
    tiles = utilities.shape[1]
    power = 1
    while power < tiles:
        power *= 2
    total = np.float32(128) * (np.clip(utilities, -8, 8).astype(np.float32) + np.clip(bonus, -24, 24).astype(np.float32))
    return np.round(total).astype(np.int64) * power - np.arange(tiles)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([1, 2, 3, 64, 65, 1000, 2048, 3840]), st.integers(0, 10_000))
def test_keys_are_exact_and_never_equal(tiles: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    utilities = rng.choice([-20, -8, -7.99, 0, 0, 0, 1 / 256, 3 / 256, 8, 20], (2, tiles)).astype(np.float32)
    utilities += rng.normal(0, 4, (2, tiles)).astype(np.float32) * (rng.random((2, tiles)) < 0.5)
    bonus = rng.choice([0, 0, 0, 24, 3.3, -24 if tiles <= 2048 else -23.99], (2, tiles)).astype(np.float32)
    keys = selection_keys(utilities, bonus)
    assert keys.dtype == np.float32
    np.testing.assert_array_equal(keys.astype(np.int64), integer_keys(utilities, bonus))
    assert all(len(set(row.tolist())) == tiles for row in keys)


def test_the_corner_beyond_2048_tiles_may_round_and_stays_last() -> None:
    utilities = np.full((1, 3840), -8, np.float32)
    bonus = np.full((1, 3840), -24, np.float32)
    bonus[0, 1000:1002] = [0, -23.99]
    keys = selection_keys(utilities, bonus)
    assert (keys.astype(np.int64) != integer_keys(utilities, bonus)).any(), "then the docstring promises too little"
    assert select_tiles(keys, 4, np.arange(3840)).tolist() == [[0, 1, 1000, 1001]]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 20), st.integers(1, 20), st.data())
def test_exactly_k_distinct_best_tiles_in_hilbert_order(rows: int, cols: int, data: st.DataObject) -> None:
    tiles = rows * cols
    k = data.draw(st.integers(1, tiles))
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    rank = hilbert_rank(rows, cols)
    keys = selection_keys(rng.choice([-1, 0, 1], (3, tiles)).astype(np.float32), np.zeros((3, tiles), np.float32))
    chosen = select_tiles(keys, k, rank)
    assert chosen.shape == (3, k) and chosen.dtype == np.int64
    for ids, key in zip(chosen, keys, strict=True):
        assert sorted(ids.tolist()) == sorted(sorted(range(tiles), key=lambda i: -key[i])[:k])
        assert (np.diff(rank[ids]) > 0).all()


def test_forced_come_first_and_forbidden_last_whatever_their_utility() -> None:
    utilities = np.array([[8, -8, 0, 8]], np.float32)
    bonus = np.array([[-24, 24, 0, 0]], np.float32)
    rank = np.arange(4)
    picks = [select_tiles(selection_keys(utilities, bonus), k, rank).tolist()[0] for k in (1, 2, 3, 4)]
    assert picks == [[1], [1, 3], [1, 2, 3], [0, 1, 2, 3]]


def test_equal_utilities_fall_to_the_lower_id() -> None:
    keys = selection_keys(np.array([[0.001, 0.0, 0.002]], np.float32), np.zeros((1, 3), np.float32))
    assert select_tiles(keys, 2, np.arange(3)).tolist() == [[0, 1]]


@pytest.mark.parametrize("k", [0, -1, 5])
def test_k_outside_the_grid_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match="K ="):
        select_tiles(np.zeros((1, 4), np.float32), k, np.arange(4))
