"""TIFF in all its kinds: bands, tiles, planes, types, byte orders; read exactly, or refused with a way out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from encoded_images import picture, tiff

from apex_runtime.data.image import Scaling, decode_image, decode_picture, percentile_scaling, rescale
from apex_runtime.errors import ImageError


def decode_bytes(data: bytes, name: str) -> np.ndarray:
    return decode_picture(data, name).pixels


@pytest.mark.parametrize("meaning", [0, 1, 2])
@pytest.mark.parametrize("photometric", [1, 2])
@pytest.mark.parametrize("bands", [3, 4])
def test_of_a_tiff_with_three_or_four_bands_the_first_three_are_the_colours(bands: int, photometric: int, meaning: int) -> None:
    """Whatever the fourth is said to be (2: alpha that libtiff would multiply with), and where they are said to be grey (1)."""
    pixels = np.dstack([picture(), np.zeros((30, 40), np.uint8)])[:, :, :bands]
    extra = {338: [meaning] * (bands - (3 if photometric == 2 else 1))} if bands == 4 or photometric == 1 else {}
    for planes in (False, True):
        data = tiff(pixels, planes=planes, more={262: [photometric], **extra})
        np.testing.assert_array_equal(decode_bytes(data, "x"), picture())


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_tiled_tiff(order: str, big: bool, kind: type) -> None:
    pixels = picture(70, 100).astype(kind)
    decoded = decode_bytes(tiff(pixels, 1, order, big, tile=32), "x")
    expected = pixels if kind is np.uint8 else rescale(pixels, percentile_scaling(pixels))
    np.testing.assert_array_equal(decoded, expected)


def test_black_and_white_tiff() -> None:
    packed = np.random.default_rng(0).integers(0, 256, (30, 5), dtype=np.uint8)
    expected = np.unpackbits(packed, axis=1) * 255
    np.testing.assert_array_equal(decode_bytes(tiff(packed, bits=1), "x")[:, :, 1], expected)


@pytest.mark.parametrize("kind", ["i2", "u4", "i4", "f4", "f8"])
def test_other_types_of_tiff(kind: str) -> None:
    grey = (picture()[:, :, 0].astype(np.int64) * 7).astype(kind)
    found = decode_picture(tiff(grey), "x")
    low, high = np.percentile(grey, [0.5, 99.5])
    assert found.scaling == Scaling(low, high)
    assert np.abs(found.pixels[:, :, 2] - np.clip((grey - low) / (high - low) * 255, 0, 255)).max() <= 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(np.zeros((8, 8, 5), np.uint8)), "5 bands, at most 4"),
        (tiff(np.zeros((8, 8, 13), np.uint16), tile=16, big=True), "13 bands"),
        (tiff(np.zeros((8, 8, 3), np.uint16), planes=True), "3 bands of 16 bits in separate planes"),
        (tiff(np.zeros((8, 8, 4), np.float32), planes=True, tile=16), "4 bands of 32 bits in separate planes"),
        (tiff(np.zeros((64, 64, 2), np.uint8), tile=32), "2 bands in tiles"),
        (tiff(np.zeros((64, 64, 2), np.uint8), planes=True), "2 bands in tiles"),
        (tiff(np.zeros((64, 64, 2), np.uint16)), "2 bands in tiles"),
    ],
)
def test_tiff_that_opencv_reads_wrongly_is_refused_with_a_way_out(data: bytes, reason: str) -> None:
    """Deep bands in planes came back as memory that was lying around, without an error."""
    with pytest.raises(ImageError, match=reason) as caught:
        decode_bytes(data, "x.tif")
    assert "gdal_translate" in caught.value.remedy


def test_jpeg_compressed_ycbcr_tiff(shared_data: Path) -> None:
    """The upstream tiles against the JPEGs that another library made of them."""
    folder = shared_data / "satellite-banepa"
    tiles = sorted((folder / "raw_tif").glob("*.tif"))[::12]
    for tile in tiles:
        twin = decode_image(folder / "images" / f"{tile.stem}.jpg")
        difference = np.abs(decode_image(tile).astype(int) - twin)
        assert difference.mean() < 3
    assert tiles


def test_what_libtiff_says_about_foreign_tags_is_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    decode_bytes(tiff(picture(), more={33550: [1], 42113: [0]}), "geo.tif")
    assert capfd.readouterr().err == ""
