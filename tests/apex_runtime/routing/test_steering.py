"""Regions as a bonus of tiles, against areas computed another way."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from apex_runtime.model_info import TileInfo
from apex_runtime.postprocess.letterbox import Letterbox
from apex_runtime.routing.steering import steered, steering_bonus

TILES = TileInfo(tile=32, halo=0, rows=4, cols=3)  # input 128 x 96
LEVELS = TileInfo(tile=16, halo=0, rows=4, cols=3, depth=2, ratio=(0.5, 0.5))
SQUARE = Letterbox(128, 96, 128, 96)


def box(x: float, y: float, width: float, height: float) -> list[np.ndarray]:
    return [np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]], np.float64)]


numbers = st.floats(-60, 700, allow_nan=False)
boxes = st.tuples(numbers, numbers, st.floats(0.01, 500), st.floats(0.01, 500)).map(lambda xywh: box(*xywh))
letterboxes = st.tuples(st.integers(20, 600), st.integers(20, 600)).map(lambda size: Letterbox(*size, 128, 96))


def _tiles_and_shared(region: list[np.ndarray], letterbox: Letterbox, tiles: TileInfo) -> list[tuple[np.ndarray, np.ndarray]]:
    """(height and width of what the tile shows, height and width of what a box has of it) of every tile, in input pixels."""
    low, high = region[0].min(0)[::-1] * letterbox.scales, region[0].max(0)[::-1] * letterbox.scales
    found = []
    for level in tiles.levels:
        for row, col in np.ndindex(level.rows, level.cols):
            start = np.array([row, col]) * level.side
            end = np.minimum(start + level.side, letterbox.content)
            found.append(((end - start).clip(0), (np.minimum(end, high) - np.maximum(start, low)).clip(0)))
    return found


@settings(deadline=None)
@given(boxes, letterboxes, st.sampled_from([TILES, LEVELS]))
def test_a_box_forces_the_tiles_it_touches_and_no_other(region: list[np.ndarray], letterbox: Letterbox, tiles: TileInfo) -> None:
    bonus = steering_bonus([region], [], letterbox, tiles)
    assert bonus.dtype == np.float32 and bonus.shape == (tiles.count,)
    for value, (_shown, shared) in zip(bonus, _tiles_and_shared(region, letterbox, tiles), strict=True):
        if shared.min() > 1:
            assert value == 24
        elif shared.min() == 0:
            assert value == 0


@settings(deadline=None)
@given(boxes, letterboxes, st.sampled_from([TILES, LEVELS]))
def test_a_tile_is_left_alone_from_half_of_what_it_shows(region: list[np.ndarray], letterbox: Letterbox, tiles: TileInfo) -> None:
    bonus = steering_bonus([], [region], letterbox, tiles)
    for value, (shown, shared) in zip(bonus, _tiles_and_shared(region, letterbox, tiles), strict=True):
        doubt = shown.sum()  # half a pixel along every side
        if 2 * shared.prod() >= shown.prod() + 2 * doubt and shown.prod():
            assert value == -24
        elif 2 * shared.prod() < shown.prod() - 2 * doubt or not shown.prod():
            assert value == 0


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.floats(-50, 150), st.floats(-50, 180)), min_size=3, max_size=3))
def test_triangles_by_the_signs_of_their_sides(corners: list[tuple[float, float]]) -> None:
    ring = np.array(corners)
    y, x = (np.mgrid[: 128 * 4, : 96 * 4] + 0.5) / 4  # 16 points in every pixel
    sides = [
        (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0]) for a, b in zip(ring, np.roll(ring, -1, axis=0), strict=True)
    ]
    inside = np.all([side > 0 for side in sides], axis=0) | np.all([side < 0 for side in sides], axis=0)
    share = inside.reshape(4, 128, 3, 128).mean((1, 3)).reshape(-1)
    look, ignore = steering_bonus([[ring]], [], SQUARE, TILES), steering_bonus([], [[ring]], SQUARE, TILES)
    assert (look[share > 0.1] == 24).all()
    assert (ignore[share >= 0.6] == -24).all() and (ignore[share < 0.4] == 0).all()


@given(st.integers(0, 11))
def test_a_box_that_is_one_tile_is_one_tile(number: int) -> None:
    row, col = divmod(number, 3)
    region = box(col * 32, row * 32, 32, 32)
    assert np.flatnonzero(steering_bonus([region], [], SQUARE, TILES)).tolist() == [number]
    assert np.flatnonzero(steering_bonus([], [region], SQUARE, TILES)).tolist() == [number]


def test_specks_and_hairs_count_where_they_are() -> None:
    huge = Letterbox(12800, 9600, 128, 96)
    assert np.flatnonzero(steering_bonus([box(5000, 700, 3, 3)], [], huge, TILES)).tolist() == [1]
    hair = [np.array([[100.0, 70.0], [9500.0, 70.0], [9500.0, 70.5]])]
    assert np.flatnonzero(steering_bonus([hair], [], huge, TILES)).tolist() == [0, 1, 2]
    assert not steering_bonus([box(96, 0, 40, 40), box(-40, 0, 40, 128)], [], SQUARE, TILES).any(), "they only touch the border"


def test_a_hole_is_not_in_the_region() -> None:
    outer, hole = box(0, 0, 96, 128)[0], box(30, 30, 40, 40)[0]
    assert np.flatnonzero(steering_bonus([], [[outer, hole]], SQUARE, TILES) == 0).tolist() == [4]


def test_looking_wins_padding_stays_forbidden_and_the_planet_is_no_overflow() -> None:
    everywhere = box(-1e9, -1e9, 3e9, 3e9)
    bonus = steering_bonus([box(40, 40, 4, 4)], [everywhere], SQUARE, TILES)
    assert bonus.tolist() == [-24.0] * 4 + [24.0] + [-24.0] * 7
    padding = np.array([0, -24, 0.5], np.float32)
    assert steered(padding, np.array([24, 24, -24], np.float32)).tolist() == [24, -24, -23.5]
