"""The quadtree's numbering, its sequence and its choice, against definitions written out in plain Python."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apex_runtime.model_info import TileInfo
from apex_runtime.routing.hilbert import hilbert_rank
from apex_runtime.routing.quadtree import children, flat_ids, flat_utilities, select_levels, sequence_ranks
from apex_runtime.routing.selection import selection_keys

grids = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))


def parent_of(tile: int, cols: int) -> int:
    """``cols`` is of the tile's own level."""
    row, col = divmod(tile, cols)
    return row // 2 * (cols // 2) + col // 2


@given(grids)
def test_every_tile_is_the_child_of_its_parent_and_of_no_other(grid: tuple[int, int, int]) -> None:
    rows, cols, _ = grid
    found = children(np.arange(rows * cols), cols)
    assert sorted(found.reshape(-1).tolist()) == list(range(4 * rows * cols))
    for tile, kids in enumerate(found.tolist()):
        assert {parent_of(kid, 2 * cols) for kid in kids} == {tile}


@given(grids)
def test_the_sequence_walks_the_finest_curve_parents_first(grid: tuple[int, int, int]) -> None:
    rows, cols, depth = grid
    ranks = sequence_ranks(rows, cols, depth)
    assert [len(rank) for rank in ranks] == [rows * cols * 4**level for level in range(depth)]
    everything = np.concatenate(ranks)
    assert len(set(everything.tolist())) == len(everything) and everything.max() < 2**24, "exact in float32, no ties"
    order = sorted((rank, level, tile) for level, part in enumerate(ranks) for tile, rank in enumerate(part.tolist()))
    place = {(level, tile): index for index, (_, level, tile) in enumerate(order)}
    finest = [tile for _, level, tile in order if level == depth - 1]
    assert finest == np.argsort(hilbert_rank(rows << (depth - 1), cols << (depth - 1))).tolist()
    for level in range(depth - 1):
        width = cols << (level + 1)
        for tile in range(len(ranks[level + 1])):
            assert place[level, parent_of(tile, width)] < place[level + 1, tile]
    np.testing.assert_array_equal(sequence_ranks(rows, cols, 1)[0], hilbert_rank(rows, cols))


def choice_by_hand(utilities: list[np.ndarray], bonus: list[np.ndarray], counts: list[int], cols: int) -> list[set[int]]:
    """Sorted by (rounded total, lower id first), children of chosen tiles only."""
    found: list[set[int]] = []
    for level, count in enumerate(counts):
        wide = cols << level
        total = np.float32(128) * (np.clip(utilities[level], -8, 8) + np.clip(bonus[level], -24, 24))
        able = [t for t in range(len(total)) if level == 0 or parent_of(t, wide) in found[-1]]
        found.append(set(sorted(able, key=lambda t, total=total: (-np.rint(total[t]), t))[:count]))
    return found


@settings(deadline=None, max_examples=80)
@given(grids, st.integers(0, 10_000))
def test_the_choice_by_hand(grid: tuple[int, int, int], seed: int) -> None:
    rows, cols, depth = grid
    rng = np.random.default_rng(seed)
    counts = [int(rng.integers(1, rows * cols + 1))]
    for _ in range(1, depth):
        counts.append(int(rng.choice([0, 4 * counts[-1], rng.integers(0, 4 * counts[-1] + 1)])))
    sizes = [rows * cols * 4**level for level in range(depth)]
    utilities = [(rng.normal(size=(2, size)) * 6).round(1).astype(np.float32) for size in sizes]
    bonus = [rng.choice([-24.0, 0, 0, 0.35, 24.0], (2, size)).astype(np.float32) for size in sizes]
    keys = [selection_keys(*pair) for pair in zip(utilities, bonus, strict=True)]
    found = select_levels(keys, counts, rows, cols)
    ranks = sequence_ranks(rows, cols, depth)
    for image in range(2):
        expected = choice_by_hand([u[image] for u in utilities], [b[image] for b in bonus], counts, cols)
        assert [set(part[image].tolist()) for part in found] == expected
        for part, rank in zip(found, ranks, strict=True):
            assert (np.diff(rank[part[image]]) > 0).all(), "in sequence within a level"
    assert [part.shape for part in found] == [(2, count) for count in counts]


@pytest.mark.parametrize("counts", [(0, 0), (5, 0), (1, 5), (2, -1)])
def test_numbers_that_cannot_be_are_refused(counts: tuple[int, int]) -> None:
    keys = [np.zeros((1, 4), np.float32), np.zeros((1, 16), np.float32)]
    with pytest.raises(ValueError, match="K = "):
        select_levels(keys, counts, 2, 2)


def test_flat_numbers_are_level_after_level() -> None:
    tiles = TileInfo(tile=32, halo=8, rows=1, cols=2, depth=3, ratio=(1, 2, 4))
    assert flat_ids(np.array([1, 0, 7, 31]), np.array([0, 1, 1, 2]), tiles).tolist() == [1, 2, 9, 41]
    outputs = {"utilities": np.zeros((1, 2)), "utilities_1": np.ones((1, 8)), "utilities_2": np.full((1, 32), 2.0), "scores": 0}
    assert flat_utilities(outputs, tiles)[0].tolist() == [0] * 2 + [1] * 8 + [2] * 32
