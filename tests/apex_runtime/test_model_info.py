"""The passport: what levels of tiles add to it, and that one level adds nothing."""

from __future__ import annotations

import pytest
from pydantic import ValidationError
from tiny_model import tiny_info

from apex_runtime.model_info import INPUT_NAMES, OUTPUT_NAMES, ModelInfo, TileInfo, input_names, output_names


def test_one_level_is_written_as_before_there_were_several() -> None:
    info = tiny_info()
    assert '"tiles":{"tile":32,"halo":0,"rows":4,"cols":4}' in info.to_json()
    assert ModelInfo.from_json(info.to_json(), "here") == info
    assert (input_names(1), output_names(1)) == (INPUT_NAMES, OUTPUT_NAMES)


def test_levels_halve_and_quadruple() -> None:
    tiles = TileInfo(tile=32, halo=8, rows=2, cols=3, depth=3, ratio=(1, 2, 4))
    assert TileInfo.model_validate(tiles.model_dump(mode="json")) == tiles
    assert [(grid.side, grid.rows, grid.cols, grid.first) for grid in tiles.levels] == [
        (128, 2, 3, 0),
        (64, 4, 6, 6),
        (32, 8, 12, 30),
    ]
    assert tiles.count == 126
    assert input_names(3)[3:] == ("tiles_1", "tile_bonus_1", "tiles_2", "tile_bonus_2")
    assert output_names(3)[8:] == ("utilities", "utilities_1", "utilities_2")


@pytest.mark.parametrize("change", [{"depth": 4}, {"depth": 2}, {"ratio": (1.0,)}, {"depth": 2, "ratio": (1.0, 0.0)}])
def test_a_grid_that_cannot_be_is_refused(change: dict) -> None:
    with pytest.raises(ValidationError):
        TileInfo.model_validate({"tile": 32, "halo": 8, "rows": 2, "cols": 3} | change)


def test_the_grid_of_level_0_covers_the_input() -> None:
    raw = tiny_info().model_dump()
    two = {"tile": 32, "halo": 0, "rows": 2, "cols": 2, "depth": 2, "ratio": (1.0, 2.0)}
    assert ModelInfo.model_validate(raw | {"tiles": two}).tiles.count == 20
    with pytest.raises(ValidationError, match=r"tile grid covers \(256, 256\)"):
        ModelInfo.model_validate(raw | {"tiles": two | {"rows": 4, "cols": 4}})
