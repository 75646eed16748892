import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apex_runtime.routing.hilbert import hilbert_rank


@pytest.mark.parametrize("side", [1, 2, 4, 8, 32])
def test_neighbours_in_the_sequence_touch_on_a_square_of_a_power_of_two(side: int) -> None:
    ids = np.argsort(hilbert_rank(side, side))
    row, col = ids // side, ids % side
    assert (np.abs(np.diff(row)) + np.abs(np.diff(col)) == 1).all()


def test_order_two_is_the_textbook_curve() -> None:
    assert hilbert_rank(2, 2).tolist() == [0, 3, 1, 2]
    assert hilbert_rank(4, 4).reshape(4, 4).tolist() == [[0, 1, 14, 15], [3, 2, 13, 12], [4, 7, 8, 11], [5, 6, 9, 10]]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 40))
def test_ranks_are_dense_and_follow_the_covering_square(rows: int, cols: int) -> None:
    rank = hilbert_rank(rows, cols)
    assert rank.dtype == np.int64 and sorted(rank.tolist()) == list(range(rows * cols))
    side = 1 << (max(rows, cols) - 1).bit_length()
    square = hilbert_rank(side, side).reshape(side, side)[:rows, :cols].reshape(-1)
    assert (np.argsort(square) == np.argsort(rank)).all()
