"""One budget over all windows."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from apex_runtime.windows.share import share_out

_UTILITIES = st.lists(
    st.lists(st.integers(-800, 800).map(lambda value: value / 100), min_size=1, max_size=9), min_size=1, max_size=7
)


@given(_UTILITIES, st.integers(1, 80))
def test_the_budget_holds_and_nothing_that_fits_is_left(utilities: list[list[float]], total: int) -> None:
    shares = share_out([np.array(found) for found in utilities], total)
    spent = len(utilities) + sum(shares)
    assert spent <= max(total, len(utilities))
    assert all(share == 0 or 2 <= share <= len(found) for share, found in zip(shares, utilities, strict=True))
    left = max(total, len(utilities)) - spent
    started = any(0 < share < len(found) for share, found in zip(shares, utilities, strict=True))
    fresh = any(share == 0 and len(found) > 1 for share, found in zip(shares, utilities, strict=True))
    assert not (left >= 1 and started) and not (left >= 2 and fresh)


@given(_UTILITIES)
def test_with_room_for_all_but_one_tile_the_worst_stays_out(utilities: list[list[float]]) -> None:
    """All windows are looked at again; the tile that is left out has the least utility of all that could be left out."""
    several = [found for found in utilities if len(found) > 2] or [[1.0, 0.5, 0.0]]
    total = len(several) + sum(map(len, several)) - 1
    shares = share_out([np.array(found) for found in several], total)
    if several:
        short = [place for place, (share, found) in enumerate(zip(shares, several, strict=True)) if share < len(found)]
        assert len(short) == 1 and shares[short[0]] == len(several[short[0]]) - 1
        assert min(several[short[0]]) == min(min(found) for found in several)


def test_tiles_go_to_the_window_that_is_worth_them() -> None:
    busy, empty = np.linspace(4, 3, 16), np.linspace(0.5, -2, 16)
    assert share_out([busy, empty, empty], 19) == [16, 0, 0]
    assert share_out([empty, busy, empty], 11) == [0, 8, 0]
    assert share_out([busy, busy, empty], 23) == [10, 10, 0]


def test_less_than_a_tile_per_window_is_the_first_pass_alone() -> None:
    assert share_out([np.ones(4)] * 5, 3) == [0] * 5
    assert share_out([np.ones(4)] * 5, 6) == [0] * 5
