"""Hysteresis keeps tiles, never adds one; flips are counted as defined."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apex_runtime.routing.grid import padding_bonus
from apex_runtime.routing.hilbert import hilbert_rank
from apex_runtime.routing.hysteresis import FlipCounter, TileMemory, hysteresis_bonus, with_hysteresis
from apex_runtime.routing.selection import select_tiles, selection_keys

COUNT = 30  # 5 x 6
RANK = hilbert_rank(5, 6)


def chosen(utilities_N: np.ndarray, bonus_N: np.ndarray, k: int) -> list[int]:
    return select_tiles(selection_keys(utilities_N[None], bonus_N[None]), k, RANK)[0].tolist()


utilities = st.lists(st.floats(-10, 10, width=32), min_size=COUNT, max_size=COUNT).map(
    lambda values: np.array(values, np.float32)
)
some_ids = st.sets(st.integers(0, COUNT - 1))


@given(some_ids, st.floats(0, 24, width=32))
def test_the_tiles_of_the_frame_before_get_the_bonus_and_no_others(ids: set[int], bonus: float) -> None:
    bonus_N = hysteresis_bonus(ids, COUNT, bonus)
    assert bonus_N.dtype == np.float32 and bonus_N.shape == (COUNT,)
    assert [float(value) for value in bonus_N] == [bonus if i in ids else 0.0 for i in range(COUNT)]


@settings(deadline=None, max_examples=50)
@given(utilities, some_ids, st.floats(0, 24, width=32), st.integers(1, COUNT), st.integers(1, COUNT))
def test_exactly_k_tiles_and_padding_is_never_among_them(
    utilities_N: np.ndarray, ids: set[int], bonus: float, k: int, content: int
) -> None:
    padding_N = padding_bonus(np.arange(COUNT) < content)
    bonus_N = with_hysteresis(padding_N, ids, bonus)
    np.testing.assert_array_equal(bonus_N[content:], -24)
    found = chosen(utilities_N, bonus_N, min(k, content))
    assert len(set(found)) == min(k, content) and max(found) < content
    if bonus == 0:
        assert found == chosen(utilities_N, padding_N, min(k, content)), "without a bonus nothing is different"


@settings(deadline=None, max_examples=25)
@given(st.lists(utilities, min_size=2, max_size=5), st.integers(1, COUNT))
def test_a_huge_bonus_freezes_the_selection(frames: list[np.ndarray], k: int) -> None:
    memory, padding_N = TileMemory(24.0), padding_bonus(np.ones(COUNT, bool))
    seen = []
    for utilities_N in frames:
        seen.append(chosen(utilities_N, memory.bonus_for("clip", padding_N), k))
        memory.remember("clip", seen[-1])
    assert all(found == seen[0] for found in seen)


def test_a_tile_keeps_its_place_until_another_is_better_by_more_than_the_bonus() -> None:
    before = with_hysteresis(np.zeros(COUNT, np.float32), [3], 0.5)
    for lead, winner in ((0.4, 3), (0.6, 20)):
        utilities_N = np.zeros(COUNT, np.float32)
        utilities_N[20] = lead
        assert chosen(utilities_N, before, 1) == [winner]


def test_memory_ends_with_the_kind_of_the_frames() -> None:
    memory, padding_N = TileMemory(2.0), np.zeros(4, np.float32)
    assert memory.bonus_for("a", padding_N).tolist() == [0, 0, 0, 0]
    memory.remember("a", [1])
    assert memory.bonus_for("a", padding_N).tolist() == [0, 2, 0, 0]
    assert memory.bonus_for("b", padding_N).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("ids", "bonus"), [([4], 1.0), ([-1], 1.0), ([0], -0.1), ([0], 24.5), ([0], float("nan"))])
def test_what_cannot_be_is_refused(ids: list[int], bonus: float) -> None:
    with pytest.raises(ValueError, match="not in"):
        hysteresis_bonus(ids, 4, bonus)


@given(st.integers(1, 10), st.lists(st.permutations(range(10)), min_size=2, max_size=6))
def test_the_flip_rate_is_flips_over_t_minus_1_times_k(k: int, orders: list[list[int]]) -> None:
    frames = [set(order[:k]) for order in orders]
    counter = FlipCounter()
    for ids in frames:
        counter.add(ids)
    changes = sum(len(a ^ b) for a, b in pairwise(frames))  # switched on or off
    assert counter.flip_rate == pytest.approx(changes / 2 / ((len(frames) - 1) * k))
    assert counter.consistency == pytest.approx(1 - counter.flip_rate)
    assert counter.mean_tiles == k and counter.frames == len(frames)


def test_frames_that_do_not_follow_each_other_are_not_compared() -> None:
    counter, other = FlipCounter(), FlipCounter()
    assert counter.flip_rate is None and counter.consistency is None and counter.mean_tiles == 0
    counter.add([1, 2])
    counter.add([3, 4], follows=False)
    assert counter.flip_rate is None and counter.mean_tiles == 2
    counter.add([3, 5])
    for ids in ([1], [2], [2]):
        other.add(ids)
    counter.merge(other)
    assert counter.flip_rate == pytest.approx((1 + 1) / (2 + 2)) and counter.frames == 6
