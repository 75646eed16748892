"""Every kind of image file a user may have, made here byte by byte or by OpenCV, and every way in which one is broken."""

import base64
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from encoded_images import ORIENTED, encode, picture, png, tiff
from hypothesis import given, settings
from hypothesis import strategies as st

from apex_runtime.data.image import (
    MAX_PIXELS,
    Scaling,
    decode_image,
    decode_picture,
    percentile_scaling,
    read_picture,
    rescale,
)
from apex_runtime.errors import ImageError

# 16 x 8 pixels, left half pure red, right half half-dark cyan, as CMYK JPEG with an Adobe marker (written by Pillow 12).
CMYK_JPEG = base64.b64decode(
    "/9j/7gAOQWRvYmUAZAAAAAAA/9sAQwACAQEBAQECAQEBAgICAgIEAwICAgIFBAQDBAYFBgYGBQYGBgcJCAYHCQcGBggLCAkKCgoKCgYICwwLCgwJCgoK/8AA"
    "FAgACAAQBEMRAE0RAFkRAEsRAP/EABUAAQEAAAAAAAAAAAAAAAAAAAoJ/8QAFBABAAAAAAAAAAAAAAAAAAAAAP/aAA4EQwBNAFkASwAAPwC/g/4/6/gAZ/h/"
    "g/7/2Q=="
)
LOSSLESS = [".png", ".bmp", ".tif"]


def decode_bytes(data: bytes, name: str) -> np.ndarray:
    return decode_picture(data, name).pixels


@pytest.mark.parametrize("extension", LOSSLESS)
@pytest.mark.parametrize("shape", [(30, 40), (1, 1), (1, 50), (50, 1)])
def test_lossless_formats_come_back_exactly(extension: str, shape: tuple[int, int]) -> None:
    image = picture(*shape)
    decoded = decode_bytes(encode(image, extension), "x")
    assert decoded.dtype == np.uint8 and decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, image)


@pytest.mark.parametrize(("extension", "parameters"), [(".jpg", []), (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]), (".webp", [])])
def test_lossy_formats_come_back_nearly(extension: str, parameters: list[int]) -> None:
    decoded = decode_bytes(encode(picture(), extension, parameters), "x").astype(int)
    assert np.abs(decoded - picture()).mean() < 6


@pytest.mark.parametrize("extension", LOSSLESS)
def test_grey_becomes_three_equal_channels(extension: str) -> None:
    grey = picture()[:, :, 0]
    np.testing.assert_array_equal(decode_bytes(encode(grey, extension), "x"), np.repeat(grey[:, :, None], 3, 2))


@pytest.mark.parametrize("extension", [".png", ".tif"])
def test_alpha_is_dropped_not_composited(extension: str) -> None:
    rgba = np.dstack([picture(), np.zeros((30, 40), np.uint8)])
    np.testing.assert_array_equal(decode_bytes(encode(rgba, extension), "x"), picture())


def test_palette_and_black_and_white() -> None:
    rows = b"".join(b"\0" + bytes([0, 1, 2, 1]) for _ in range(3))
    colours = decode_bytes(png(4, 3, 8, 3, rows, bytes([255, 0, 0, 0, 200, 0, 9, 9, 250])), "x")
    np.testing.assert_array_equal(colours, [[[255, 0, 0], [0, 200, 0], [9, 9, 250], [0, 200, 0]]] * 3)
    bits = decode_bytes(png(8, 2, 1, 0, b"\0\xf0\0\x0f"), "x")
    np.testing.assert_array_equal(bits[:, :, 1], [[255] * 4 + [0] * 4, [0] * 4 + [255] * 4])


def png_rows(image: np.ndarray) -> bytes:
    """Rows without a filter, samples big-endian."""
    return b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in image)


def test_transparency_of_a_palette_and_of_one_colour_is_dropped() -> None:
    colours = bytes([255, 0, 0, 0, 200, 0, 9, 9, 250])
    decoded = decode_bytes(png(3, 1, 8, 3, b"\0\0\1\2", colours, transparency=bytes([0, 128, 255])), "x")
    np.testing.assert_array_equal(decoded, [[[255, 0, 0], [0, 200, 0], [9, 9, 250]]])
    image = picture()
    key = struct.pack(">HHH", *(int(value) for value in image[3, 3]))
    np.testing.assert_array_equal(decode_bytes(png(40, 30, 8, 2, png_rows(image), transparency=key), "x"), image)


@pytest.mark.parametrize("alpha", [0, 255])
def test_alpha_beside_grey_is_dropped(alpha: int) -> None:
    grey = picture()[:, :, 0]
    both = np.dstack([grey, np.full_like(grey, alpha)])
    expected = np.repeat(grey[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(decode_bytes(png(40, 30, 8, 4, png_rows(both)), "x"), expected)
    np.testing.assert_array_equal(decode_bytes(tiff(both, more={338: [2]}), "x"), expected)
    deep = both.astype(np.uint16) * 16
    stretched = rescale(deep[:, :, :1], percentile_scaling(deep[:, :, :1]))
    np.testing.assert_array_equal(decode_bytes(png(40, 30, 16, 4, png_rows(deep)), "x"), np.repeat(stretched, 3, axis=2))


@pytest.mark.parametrize("channels", [1, 3])
def test_scaling_of_a_deep_image_is_stated_and_is_the_percentile(tmp_path: Path, channels: int) -> None:
    deep = np.random.default_rng(0).gamma(2, 900, (200, 300, channels)).astype(np.uint16)
    (tmp_path / "deep.png").write_bytes(encode(deep[:, :, 0] if channels == 1 else deep, ".png"))
    found = read_picture(tmp_path / "deep.png")
    low, high = np.percentile(deep, [0.5, 99.5])
    assert found.scaling == Scaling(low, high)
    expected = np.clip((deep.astype(np.float64) - low) / (high - low) * 255, 0, 255)
    assert np.abs(found.pixels - expected).max() <= 0.51


@pytest.mark.parametrize("extension", [".png", ".jpg", ".tif", ".bmp", ".webp"])
def test_an_image_of_8_bits_is_not_scaled(extension: str) -> None:
    assert decode_picture(encode(picture() // 2, extension), "x").scaling is None


def test_scaling_of_nothing_finite() -> None:
    assert percentile_scaling(np.full((3, 3), np.nan)) == Scaling(0, 1)
    assert (rescale(np.full((3, 3), np.nan), Scaling(0, 1)) == 0).all()


@given(st.lists(st.floats(width=32), min_size=1, max_size=50))
def test_rescaling_keeps_the_order_of_finite_values(values: list[float]) -> None:
    image = np.array([values], np.float32)
    with np.errstate(over="ignore"):
        scaled = rescale(image, percentile_scaling(image))
    finite = np.isfinite(image[0])
    order = np.argsort(image[0][finite], kind="stable")
    assert (np.diff(scaled[0][finite][order].astype(int)) >= 0).all() and scaled.dtype == np.uint8
    assert (scaled[np.isnan(image)] == 0).all()


@pytest.mark.parametrize("kind", ORIENTED)
def test_orientation_is_what_opencv_shows(kind: str) -> None:
    """All eight, in EXIF of JPEG, PNG and WebP and in TIFF; values beyond them mean nothing."""
    for orientation in range(10):
        data = ORIENTED[kind](picture(), orientation)
        shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
        found = decode_bytes(data, "x")
        if kind == "deep_tiff":  # stretched here, cut to its high byte there
            assert found.shape == shown.shape and np.abs(found.astype(int) - shown).max() <= 4
        else:
            np.testing.assert_array_equal(found, shown)


def test_the_eight_orientations_are_the_eight_ways_to_lay_a_picture() -> None:
    image = picture()
    ways = [image, image[:, ::-1], image[::-1, ::-1], image[::-1]]
    ways += [np.swapaxes(way, 0, 1) for way in (image, image[::-1], image[::-1, ::-1], image[:, ::-1])]
    for orientation, expected in enumerate(ways, 1):
        np.testing.assert_array_equal(decode_bytes(ORIENTED["png"](image, orientation), "x"), expected)


@pytest.mark.parametrize("peak", [300, 4095, 65535])
@pytest.mark.parametrize("extension", [".png", ".tif"])
def test_16_bit_is_stretched_and_neither_black_nor_flat(extension: str, peak: int) -> None:
    ramp = np.linspace(0, peak, 40 * 30).reshape(30, 40).astype(np.uint16)
    decoded = decode_bytes(encode(ramp, extension), "x")
    assert decoded.dtype == np.uint8 and decoded.shape == (30, 40, 3)
    expected = np.clip((ramp - 0.005 * peak) / (0.99 * peak) * 255, 0, 255)
    assert np.abs(decoded[:, :, 0] - expected).max() <= 2


def test_one_stretch_for_all_channels_keeps_colours_apart() -> None:
    deep = picture().astype(np.uint16) * 16
    decoded = decode_bytes(encode(deep, ".png"), "x").astype(int)
    assert np.abs(decoded - picture()).max() <= 4


def test_a_hot_pixel_does_not_darken_a_16_bit_image() -> None:
    deep = np.full((100, 100), 900, np.uint16)
    deep[::2] = 300
    deep[0, 0] = 65535
    assert decode_bytes(encode(deep, ".png"), "x").mean() == pytest.approx(127.5, abs=1)


@pytest.mark.parametrize("value", [0, 128, 65535])
def test_a_constant_16_bit_image_keeps_its_place_in_the_range(value: int) -> None:
    decoded = decode_bytes(encode(np.full((5, 5), value, np.uint16), ".png"), "x")
    assert (decoded == round(value / 257)).all()


def test_float_tiff_with_not_a_number() -> None:
    values = np.linspace(-1, 1, 1200, dtype=np.float32).reshape(30, 40)
    values[3, 3] = np.nan
    decoded = decode_bytes(encode(values, ".tif"), "x")
    assert decoded[3, 3, 0] == 0 and decoded[0, 0, 0] == 0 and decoded[-1, -1, 0] == 255
    assert int(decoded[15, 0, 0]) == pytest.approx(127, abs=3)


def test_cmyk_jpeg() -> None:
    decoded = decode_bytes(CMYK_JPEG, "x").astype(int)
    assert decoded.shape == (8, 16, 3)
    assert np.abs(decoded[:, 0] - [255, 0, 0]).max() <= 3 and np.abs(decoded[:, 15] - [0, 127, 127]).max() <= 3


def test_extension_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "really_a_png.jpg"
    path.write_bytes(encode(picture(), ".png"))
    np.testing.assert_array_equal(decode_image(path), picture())


def test_12000_x_9000_is_decoded() -> None:
    decoded = decode_bytes(encode(np.zeros((9000, 12000), np.uint8), ".png", [cv2.IMWRITE_PNG_COMPRESSION, 1]), "x")
    assert decoded.shape == (9000, 12000, 3)


def test_more_than_the_limit_is_refused_before_decoding() -> None:
    side = int(MAX_PIXELS**0.5) + 1
    with pytest.raises(ImageError, match=f"bomb.png: too large: {side}x{side}"):
        decode_bytes(png(side, side, 8, 2, b""), "bomb.png")


EVERY_KIND = [
    *((extension, picture(200, 300)) for extension in (".jpg", ".png", ".bmp", ".tif", ".webp")),
    (".tif", picture(200, 300).astype(np.uint16)),
]


@pytest.mark.parametrize(("extension", "image"), EVERY_KIND)
@pytest.mark.parametrize("share", [0.001, 0.02, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_an_error_not_half_a_picture(extension: str, image: np.ndarray, share: float) -> None:
    data = encode(image, extension)
    with pytest.raises(ImageError, match=r"cut\.img: "):
        decode_bytes(data[: int(len(data) * share)], "cut.img")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello, I am a text\n" * 50, "not an image"),
        (b"GIF89a" + bytes(100), "not an image"),
        (b"\xff\xd8\xff\xd9", "damaged"),
        (b"\xff\xd8\xff", "damaged"),
        (b"BM", "damaged"),
        (b"II*\0", "damaged"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "damaged"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (png(0, 5, 8, 2, b""), "0x5"),
    ],
)
def test_what_is_no_image_says_so(data: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=reason) as caught:
        decode_image(path)
    assert str(path) in str(caught.value) and caught.value.remedy and caught.value.path == str(path)


def test_absent_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.png", tmp_path):
        with pytest.raises(ImageError, match="cannot be read"):
            decode_image(path)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from([".jpg", ".png", ".bmp", ".tif", ".webp"]), st.data())
def test_no_damage_ends_in_anything_but_an_image_or_an_image_error(extension: str, data: st.DataObject) -> None:
    damaged = bytearray(encode(picture(), extension))
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, min(len(damaged) - 1, 200)))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_bytes(bytes(damaged), "x")
    except ImageError:
        return
    assert decoded.ndim == 3 and decoded.shape[2] == 3 and decoded.dtype == np.uint8


def test_damage_inside_a_jpeg_that_the_decoder_gets_over_is_no_error() -> None:
    """Its warning cannot be had from OpenCV; should that change, such a file should become an ImageError."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = bytearray(cv2.imencode(".jpg", pixels)[1].tobytes())
    data[3000:3040] = b"\xd3\xff" * 20
    assert decode_bytes(bytes(data), "damaged.jpg").shape == (64, 64, 3)


@pytest.mark.parametrize("shape", [(1000, 1000), (990, 999), (2000, 1500)])
def test_percentiles_are_those_of_all_channels(shape: tuple[int, int]) -> None:
    """A sample at a step of three values would see one channel only; each has a range of its own here."""
    rng = np.random.default_rng(0)
    deep = np.stack([rng.integers(*limits, shape) for limits in ((0, 1000), (5000, 20000), (20000, 60000))], 2).astype(np.uint16)
    scaling = decode_picture(encode(deep, ".png"), "x").scaling
    low, high = np.percentile(deep, [0.5, 99.5])
    assert scaling is not None and scaling.low == pytest.approx(low, abs=20) and scaling.high == pytest.approx(high, rel=0.01)
