"""The size of an image from its header: the size that the decoder returns, for every format, orientation and kind of damage."""

import struct

import cv2
import pytest
from encoded_images import encode, picture

from apex_runtime.data.image_header import read_header


@pytest.mark.parametrize(
    ("extension", "kind"), [(".jpg", "JPEG"), (".png", "PNG"), (".bmp", "BMP"), (".tif", "TIFF"), (".webp", "WebP")]
)
def test_header_names_kind_and_size(extension: str, kind: str) -> None:
    header = read_header(encode(picture(33, 47), extension))
    assert header is not None and header[:4] == (kind, 47, 33, True)


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp"])
def test_a_missing_end_is_seen_without_decoding(extension: str) -> None:
    """Older releases of OpenCV fill the rest of a truncated JPEG or PNG with grey and say nothing."""
    header = read_header(encode(picture(33, 47), extension)[:-20])
    assert header is not None and not header.complete


def test_header_of_big_tiff_and_lossless_webp() -> None:
    entries = struct.pack("<HHQQ", 256, 4, 1, 70000) + struct.pack("<HHQQ", 257, 3, 1, 12)
    header = read_header(b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, 2) + entries)
    assert header is not None and (header.width, header.height) == (70000, 12)
    header = read_header(encode(picture(33, 47), ".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]))
    assert header is not None and (header.width, header.height) == (47, 33)
