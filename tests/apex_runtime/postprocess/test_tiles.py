import numpy as np
import pytest

from apex_runtime.model_info import TileInfo
from apex_runtime.postprocess.letterbox import Letterbox
from apex_runtime.postprocess.tiles import looked_tiles, tile_records


@pytest.mark.parametrize("size", [(128, 128), (64, 128), (300, 100), (37, 91)])
def test_a_tile_covers_the_source_pixels_that_land_in_it(size: tuple[int, int]) -> None:
    """Each source pixel goes to the tile that its centre lies in at input scale; a tile's box is the extent of its pixels."""
    tiles = TileInfo(tile=32, halo=8, rows=4, cols=4)
    box = Letterbox(*size, 128, 128)
    (y, x), (scale_y, scale_x) = np.mgrid[: size[0], : size[1]], box.scales
    owner = ((y + 0.5) * scale_y // 32 * 4 + (x + 0.5) * scale_x // 32).astype(int)
    ids = np.unique(owner)
    found = looked_tiles(ids, np.zeros_like(ids), tiles, box)
    assert [tile.id for tile in found] == ids.tolist() and {tile.level for tile in found} == {0}
    for tile in found:
        left, top, width, height = tile.bbox
        mine = np.argwhere(owner == tile.id)
        np.testing.assert_allclose([top, left], mine.min(0), atol=0.5 + 1e-3)
        np.testing.assert_allclose([top + height, left + width], mine.max(0) + 1, atol=0.5 + 1e-3)
    assert sum(tile.bbox[2] * tile.bbox[3] for tile in found) == pytest.approx(size[0] * size[1], rel=1e-3)


def test_finer_levels_and_the_form_of_results_json() -> None:
    tiles = TileInfo(tile=32, halo=8, rows=2, cols=2, depth=2, ratio=(1, 1))
    box = Letterbox(256, 256, 128, 128)  # two source pixels per input pixel
    records = tile_records(np.array([3, 6]), np.array([0, 1]), tiles, box)
    assert records == [
        {"id": 3, "level": 0, "bbox": [128.0, 128.0, 128.0, 128.0]},
        {"id": 6, "level": 1, "bbox": [128.0, 64.0, 64.0, 64.0]},
    ]
