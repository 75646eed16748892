"""A budget shared out among levels: it adds up, follows the ratio, and never reaches padding, whatever the router prefers."""

import math
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apex_runtime.errors import UsageError
from apex_runtime.model_info import ModelInfo, TileInfo
from apex_runtime.postprocess.letterbox import Letterbox
from apex_runtime.routing.budget import parse_budget, parse_levels
from apex_runtime.routing.grid import content_tiles, padding_bonus
from apex_runtime.routing.quadtree import select_levels
from apex_runtime.routing.selection import selection_keys
from apex_runtime.routing.split import Room, plan_tiles, split_tiles

RATIOS = {1: (), 2: (1.0, 2.0), 3: (1.0, 2.0, 4.0)}


def model(depth: int, rows: int = 4, cols: int = 4, ratio: tuple[float, ...] | None = None) -> ModelInfo:
    tiles = TileInfo(tile=32, halo=8, rows=rows, cols=cols, depth=depth, ratio=RATIOS[depth] if ratio is None else ratio)
    return cast(ModelInfo, SimpleNamespace(tiles=tiles, gflops=SimpleNamespace(base=2.0, per_tile=0.5)))


def content(info: ModelInfo, height: int, width: int) -> np.ndarray:
    """Of a picture of this shape in the model's input."""
    grid = info.tiles.levels[0]
    return content_tiles(Letterbox(height, width, grid.rows * grid.side, grid.cols * grid.side), info.tiles)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [("1", (1, 0)), ("2", (1, 1)), ("3", (1, 2)), ("30", (10, 20)), ("79", (16, 63)), ("1.0", (16, 64)), ("7gflops", (3, 7))],
)
def test_two_levels(budget: str, expected: tuple[int, int]) -> None:
    info = model(2)
    assert plan_tiles(parse_budget(budget), np.ones(80, bool), info) == expected


def test_three_levels_and_a_ratio_of_ones_own() -> None:
    everywhere = np.ones(16 + 64 + 256, bool)
    assert plan_tiles(parse_budget(70), everywhere, model(3)) == (10, 20, 40)
    assert plan_tiles(parse_budget(40), everywhere, model(3, ratio=(1, 1, 8))) == (4, 8, 28), "7 parents have no more than 28"
    assert plan_tiles(parse_budget(1), everywhere, model(3)) == (1, 0, 0)


def test_one_level_is_what_it_was() -> None:
    info = model(1)
    assert plan_tiles(parse_budget(0.5), np.ones(16, bool), info) == 8
    assert plan_tiles(parse_levels("20"), np.ones(16, bool), info) == 16


@pytest.mark.parametrize(
    ("asked", "expected"), [("16,12", (16, 12)), ("16", (16, 0)), ("2,12", (2, 8)), ("99,99", (16, 64)), ("3,0", (3, 0))]
)
def test_tiles_by_level_are_cut_to_what_there_is(asked: str, expected: tuple[int, int]) -> None:
    assert plan_tiles(parse_levels(asked), np.ones(80, bool), model(2)) == expected


def test_more_levels_than_the_engine_has_are_refused() -> None:
    with pytest.raises(UsageError, match="1 level"):
        plan_tiles(parse_levels("4,4"), np.ones(16, bool), model(1))


@pytest.mark.parametrize("text", ["", "0", "0,4", "a", "1.5", "1,2,3,4", "-1", "4,-1", "4,,2", "9999999"])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--tiles"):
        parse_levels(text)


sizes = st.tuples(st.integers(1, 400), st.integers(1, 400))


@settings(deadline=None, max_examples=150)
@given(
    st.integers(2, 3),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    sizes,
    st.integers(1, 400),
    st.lists(st.floats(0.1, 10), min_size=3, max_size=3),
)
def test_it_adds_up_and_follows_the_ratio(
    depth: int, grid: tuple[int, int], size: tuple[int, int], total: int, shares: list[float]
) -> None:
    info = model(depth, *grid, ratio=tuple(shares[:depth]))
    here = content(info, *size)
    room = Room.of(here, info.tiles)
    counts = split_tiles(total, info.tiles.ratio, room)
    assert sum(counts) == min(total, int(here.sum())) and counts[0] >= 1
    for level in range(1, depth):
        assert 0 <= counts[level] <= 4 * counts[level - 1]
    least = math.floor(total * info.tiles.ratio[0] / sum(info.tiles.ratio))
    assert counts[0] >= min(least, room.first), "level 0 has its share, and more only where the others could not take it"


@settings(deadline=None, max_examples=150)
@given(st.integers(2, 3), sizes, st.integers(1, 400), st.integers(0, 1000))
def test_padding_is_never_chosen(depth: int, size: tuple[int, int], total: int, seed: int) -> None:
    """Not even by a router that likes padding best, and the tiles beside it next."""
    info = model(depth, 3, 4)
    here = content(info, *size)
    counts = split_tiles(total, info.tiles.ratio, Room.of(here, info.tiles))
    rng = np.random.default_rng(seed)
    liking = np.where(here, rng.normal(0, 6, here.shape), 100).astype(np.float32)
    bonus = padding_bonus(here)
    keys = [selection_keys(liking[None, grid.flat], bonus[None, grid.flat]) for grid in info.tiles.levels]
    for grid, ids in zip(info.tiles.levels, select_levels(keys, counts, 3, 4), strict=True):
        assert here[grid.flat][ids[0]].all()


@pytest.mark.parametrize(("depth", "expected"), [(2, {64: 12, 32: 40}), (3, {128: 4, 64: 12, 32: 40})])
def test_content_at_every_level(depth: int, expected: dict[int, int]) -> None:
    """256 pixels wide, 160 high: 64-pixel tiles in 3 rows, of which the last has one row of children that are padding."""
    info = model(depth, 4 >> (depth - 2), 4 >> (depth - 2))
    here = content(info, 160, 256)
    assert {grid.side: int(here[grid.flat].sum()) for grid in info.tiles.levels} == expected
