from __future__ import annotations

import numpy as np
import pytest

from apex_runtime.data.scenes.georeference import LON_LAT, WEB_MERCATOR, overlap, transform, xyz_georeference


def test_web_mercator_in_closed_form_is_that_of_proj() -> None:
    warp = pytest.importorskip("rasterio.warp")
    points = np.random.default_rng(0).uniform([-180, -85], [180, 85], (500, 2))
    x, y = warp.transform(LON_LAT, WEB_MERCATOR, points[:, 0], points[:, 1])
    found = transform(points, LON_LAT, WEB_MERCATOR)
    assert np.abs(found - np.stack([x, y], axis=1)).max() < 1e-6  # metres
    assert np.abs(transform(found, WEB_MERCATOR, LON_LAT) - points).max() < 1e-12


def test_the_corners_of_a_tile_are_those_of_the_slippy_map() -> None:
    tile = xyz_georeference("OAM-386690-220241-19", 512, 256)
    assert tile is not None
    n = 2.0**19
    corner = [386690 / n * 360 - 180, np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * 220241 / n))))]
    opposite = [386691 / n * 360 - 180, np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * 220242 / n))))]
    assert np.allclose(tile.to_pixels(np.array([corner, opposite])), [[0, 0], [512, 256]], atol=1e-4)
    assert np.allclose(tile.footprint[[0, 2]], [corner, opposite], atol=1e-12)


@pytest.mark.parametrize("stem", ["scene", "2021-05-12", "1-2", "9-9-3", "0-0-31", "a386690-220241-19"])
def test_other_names_are_no_tiles(stem: str) -> None:
    assert xyz_georeference(stem, 256, 256) is None


def test_overlap_is_all_of_itself_none_of_a_neighbour_and_a_quarter_of_the_parent() -> None:
    def tile(x: int, y: int, z: int) -> object:
        return xyz_georeference(f"{x}-{y}-{z}", 256, 256)

    one, beside, parent = tile(386690, 220241, 19), tile(386691, 220241, 19), tile(193345, 110120, 18)
    assert overlap(one, one) == pytest.approx(256**2)  # type: ignore[arg-type]
    assert overlap(one, beside) == pytest.approx(0, abs=0.01)  # type: ignore[arg-type]
    assert overlap(parent, one) == pytest.approx(128**2)  # type: ignore[arg-type]
