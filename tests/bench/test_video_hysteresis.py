"""Objects that enter a clip: who they are, in which tile they lie, and whether somebody looked there in time."""

from __future__ import annotations

import numpy as np
import pytest
from video_hysteresis import Frame, tile_of, waits

from apex_runtime.model_info import TileInfo
from apex_runtime.postprocess.letterbox import Letterbox

TILES = TileInfo(tile=64, halo=8, rows=2, cols=4)
BOX = Letterbox(64, 128, 128, 256)  # enlarged twice: a tile is 32 pixels of the frame


def frame(*centres: tuple[float, float], looked: set[int] = frozenset()) -> Frame:
    boxes = np.array([[x - 8, y - 4, x + 8, y + 4] for x, y in centres], np.float32).reshape(-1, 4)
    return Frame(boxes, BOX, frozenset(looked))


@pytest.mark.parametrize(("centre", "tile"), [((16, 16), 0), ((40, 16), 1), ((127, 63), 7), ((31.9, 32.1), 4)])
def test_an_object_lies_in_the_tile_of_its_centre(centre: tuple[float, float], tile: int) -> None:
    assert tile_of(frame(centre).boxes_G4[0], BOX, TILES) == tile


def test_one_that_enters_is_followed_until_it_is_looked_at() -> None:
    resting = (100, 50)
    moving = [frame(resting), frame(resting, (8, 16)), frame(resting, (20, 16)), frame(resting, (34, 16), looked={1})]
    assert waits(moving, TILES) == {"entered": 1, "covered_within_3": 1.0}
    late = [*moving[:3], frame(resting, (34, 16)), frame(resting, (46, 16), looked={1})]
    assert waits(late, TILES) == {"entered": 1, "covered_within_3": 0.0}
    assert waits([frame(resting, looked={7})] * 4, TILES) == {"entered": 0, "covered_within_3": None}


@pytest.mark.parametrize("looked", [set(), {0}])
def test_who_has_entered_does_not_depend_on_where_was_looked(looked: set[int]) -> None:
    leaving = [frame(), frame((8, 16), looked=looked), frame(), frame()]
    assert waits(leaving, TILES)["entered"] == 0
    assert waits([frame(), frame((8, 16), looked=looked)], TILES)["entered"] == 0


def test_one_that_jumps_further_than_it_is_long_is_another() -> None:
    frames = [frame((8, 16)), frame((40, 16), looked={1}), frame((40, 16)), frame((40, 16))]
    assert waits(frames, TILES) == {"entered": 1, "covered_within_3": 1.0}
