"""Masks written by rasterio come back value by value."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from apex_runtime.data.satellite.colour_table import Classes, Entry, build_table
from apex_runtime.data.satellite.mask_picture import decode_mask, mask_size

BANDS = np.random.default_rng(0).integers(0, 256, (4, 6, 9)).astype(np.uint8)


def write(path: Path, bands: np.ndarray, **options: Any) -> Path:
    """Bands [c,h,w] as a TIFF."""
    rasterio = pytest.importorskip("rasterio")
    count, height, width = bands.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": bands.dtype, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", **profile) as file:
            file.write(bands)
    return path


@pytest.mark.parametrize("alpha", ["NON-PREMULTIPLIED", "PREMULTIPLIED", "UNSPECIFIED"])
def test_alpha_changes_no_colour(tmp_path: Path, alpha: str) -> None:
    path = write(tmp_path / "a.tif", BANDS, photometric="RGB", alpha=alpha)
    assert np.array_equal(decode_mask(path).pixels, np.moveaxis(BANDS[:3], 0, 2))


@pytest.mark.parametrize("count", [3, 4])
def test_three_bands_are_colours_whatever_the_file_calls_them(tmp_path: Path, count: int) -> None:
    path = write(tmp_path / "a.tif", BANDS[:count], photometric="MINISBLACK")
    assert np.array_equal(decode_mask(path).pixels, np.moveaxis(BANDS[:3], 0, 2))


@pytest.mark.parametrize("options", [{}, {"nbits": 1}])
def test_masks_whose_zero_is_white_are_refused(tmp_path: Path, options: dict[str, int]) -> None:
    path = write(tmp_path / "a.tif", BANDS[:1] & 1, photometric="MINISWHITE", **options)
    for read in (decode_mask, mask_size):
        with pytest.raises(ValueError, match="0 is white"):
            read(path)


@pytest.mark.parametrize("value", [1, 255])
@pytest.mark.parametrize("kind", ["png", "tif"])
def test_a_mask_of_one_bit_fits_a_table_of_0_and_1_and_of_0_and_255(tmp_path: Path, kind: str, value: int) -> None:
    bits = BANDS[:1] & 1
    path = tmp_path / f"a.{kind}"
    if kind == "tif":
        write(path, bits, nbits=1)
    else:
        assert cv2.imwrite(str(path), bits[0] * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])
    ignore = (Entry(name="none", value=0),)
    table = build_table(Classes(classes=(Entry(name="a", value=value),), ignore=ignore), [], 0, path)
    picture = decode_mask(path)
    assert table.unknown(picture) == []
    assert np.array_equal(next(table.class_masks(picture))[1] > 0, bits[0] > 0)
