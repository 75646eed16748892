import numpy as np
import pytest

from apex_runtime.model_info import TileInfo
from apex_runtime.postprocess.letterbox import Letterbox
from apex_runtime.routing.grid import content_tiles, padding_bonus

TILES = TileInfo(tile=64, halo=16, rows=4, cols=4)


@pytest.mark.parametrize(
    ("source", "rows", "cols"),
    [((256, 256), 4, 4), ((128, 256), 2, 4), ((129, 256), 3, 4), ((1000, 10), 4, 1), ((1, 4000), 1, 4), ((1, 1), 4, 4)],
)
def test_tiles_that_overlap_the_content(source: tuple[int, int], rows: int, cols: int) -> None:
    content = content_tiles(Letterbox(*source, 256, 256), TILES)
    expected = np.zeros((4, 4), bool)
    expected[:rows, :cols] = True
    np.testing.assert_array_equal(content, expected.reshape(-1))
    bonus = padding_bonus(content)
    assert bonus.dtype == np.float32
    np.testing.assert_array_equal(bonus, np.where(content, 0, -24))
