from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from apex_runtime.data.scenes.georeference import LON_LAT, WEB_MERCATOR, overlap, tiff_georeference, transform, xyz_georeference

NOT_TILES = ("scene_1-2-3", "15-11-23", "05-11-23")  # numbers, and dates


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


@pytest.mark.parametrize("stem", ["scene", "2021-05-12", "1-2", "9-9-3", "0-0-31", "a386690-220241-19", *NOT_TILES])
def test_other_names_are_no_tiles(stem: str) -> None:
    assert xyz_georeference(stem, 256, 256) is None


def test_overlap_is_all_of_itself_none_of_a_neighbour_and_a_quarter_of_the_parent() -> None:
    def tile(x: int, y: int, z: int) -> object:
        return xyz_georeference(f"{x}-{y}-{z}", 256, 256)

    one, beside, parent = tile(386690, 220241, 19), tile(386691, 220241, 19), tile(193345, 110120, 18)
    assert overlap(one, one) == pytest.approx(256**2)  # type: ignore[arg-type]
    assert overlap(one, beside) == pytest.approx(0, abs=0.01)  # type: ignore[arg-type]
    assert overlap(parent, one) == pytest.approx(128**2)  # type: ignore[arg-type]


def test_the_tags_of_a_geotiff_are_those_of_proj(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    warp = pytest.importorskip("rasterio.warp")
    affine = rasterio.Affine(0.5, 0, 500_000, 0, -0.25, 3_057_000)
    profile = {"driver": "GTiff", "count": 1, "height": 40, "width": 60, "dtype": "uint8", "crs": "EPSG:32645"}
    with rasterio.open(tmp_path / "a.tif", "w", transform=affine, **profile) as file:
        file.write(np.zeros((1, 40, 60), np.uint8))
    place = tiff_georeference(tmp_path / "a.tif")
    assert place is not None and (place.height, place.width) == (40, 60)
    pixels = np.array([[0, 0], [60, 40], [12.5, 7.25]])
    x, y = warp.transform("EPSG:32645", LON_LAT, 500_000 + 0.5 * pixels[:, 0], 3_057_000 - 0.25 * pixels[:, 1])
    assert np.allclose(place.to_pixels(np.stack([x, y], axis=1)), pixels, atol=1e-3)
    assert overlap(place, place) == pytest.approx(2400, rel=1e-4)
