"""The size of an image from its header: the size that the decoder returns, for every format, orientation and kind of damage."""

import struct
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from encoded_images import ORIENTED, encode, exif, oriented_jpeg, picture, png, tiff
from hypothesis import given, settings
from hypothesis import strategies as st

from apex_runtime.data import image as image_module
from apex_runtime.data.image import EXTENSIONS, decode_image, image_size
from apex_runtime.data.image_header import read_header
from apex_runtime.errors import ImageError


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


JPEG = encode(picture(33, 47), ".jpg")
BIG_TIFF = b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, 250_000) + struct.pack("<HHQQ", 256, 4, 1, 70000) * 250_000


@pytest.mark.parametrize("data", [JPEG[:2] + b"\xff\xe1\0\2" * 250_000 + JPEG[2:], JPEG[:3] + b"\xff" * 250_000, BIG_TIFF])
def test_a_header_of_very_many_parts_is_not_read_to_its_end(data: bytes) -> None:
    with pytest.raises(ValueError, match="too many"):
        read_header(data)


def test_an_orientation_behind_very_many_chunks_is_not_looked_for() -> None:
    """A 20 MB file can have two million, each of which takes a step of the interpreter; the size is that of the header still."""
    turned = ORIENTED["png"](picture(33, 47), 6)
    for chunks, orientation in ((3, 6), (250_000, 1)):
        header = read_header(turned[:33] + bytes(12) * chunks + turned[33:])
        assert header is not None and (header.width, header.height, header.orientation) == (47, 33, orientation)


@pytest.mark.parametrize("kind", ORIENTED)
def test_size_is_that_of_the_decoded_image_for_every_orientation(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.img"
    for orientation in range(10):
        path.write_bytes(ORIENTED[kind](picture(30, 40), orientation))
        expected = (40, 30) if 5 <= orientation <= 8 else (30, 40)
        assert image_size(path) == expected == decode_image(path).shape[:2]


GREY = picture()[:, :, 0]
CASES = {
    "grey.jpg": encode(GREY, ".jpg"),
    "grey.png": encode(GREY, ".png"),
    "rgba.png": encode(np.dstack([picture(), GREY]), ".png"),
    "deep.png": encode(picture().astype(np.uint16) * 257, ".png"),
    "palette.png": png(4, 3, 8, 3, b"\0\0\1\2\1" * 3, bytes(9)),
    "bits.png": png(8, 2, 1, 0, b"\0\xf0\0\x0f"),
    "rgb.bmp": encode(picture(), ".bmp"),
    "lossless.webp": encode(picture(), ".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]),
    "progressive.jpg": encode(picture(), ".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
    "rgb.tif": encode(picture(), ".tif"),
    "rgba.tif": tiff(np.dstack([picture(), GREY])),
    "float.tif": tiff(picture().astype(np.float32), 6, ">"),
    "tiled_big.tif": tiff(picture(70, 100), 5, "<", big=True, tile=32),
    "bits.tif": tiff(np.zeros((30, 5), np.uint8), 8, bits=1),
}


@pytest.mark.parametrize("name", CASES)
def test_size_is_that_of_the_decoded_image_for_every_format(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(CASES[name])
    assert image_size(tmp_path / name) == decode_image(tmp_path / name).shape[:2]


def test_size_of_real_images(shared_data: Path) -> None:
    """A sample of every folder and kind of file."""
    groups = defaultdict(list)
    for path in shared_data.rglob("*"):
        if path.suffix.lower() in EXTENSIONS:
            groups[path.parent, path.suffix].append(path)
    sample = [path for paths in groups.values() for path in sorted(paths)[:: max(1, len(paths) // 6)]]
    assert len(sample) > 100
    assert [path for path in sample if image_size(path) != decode_image(path).shape[:2]] == []


def test_size_without_a_map_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(19, "No such device")

    (tmp_path / "a.jpg").write_bytes(oriented_jpeg(picture(30, 40), 6))
    monkeypatch.setattr(image_module, "mmap", refuse)
    assert image_size(tmp_path / "a.jpg") == (40, 30)


BROKEN = [
    b"",
    b"hello, I am a text",
    b"GIF89a" + bytes(100),
    b"\xff\xd8\xff\xd9",
    b"II*\0",
    encode(picture(), ".jpg")[:-100],
    encode(picture(), ".png")[:200],
    encode(picture(), ".webp")[:-10],
    png(0, 5, 8, 2, b""),
    png(50_000, 50_000, 8, 2, b""),
    tiff(np.zeros((8, 8, 5), np.uint8)),
]


@pytest.mark.parametrize("data", BROKEN)
def test_a_broken_file_is_refused_in_the_words_of_the_decoder(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(ImageError) as decoded:
        decode_image(path)
    with pytest.raises(ImageError) as sized:
        image_size(path)
    assert str(sized.value) == str(decoded.value)


def test_absent_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.png", tmp_path):
        with pytest.raises(ImageError, match="cannot be read"):
            image_size(path)


@pytest.mark.parametrize("block", [b"", b"MM\0*", exif(6)[:12], b"\0" * 40, exif(6).replace(b"\x01\x12\0\3", b"\x01\x12\0\7")])
def test_a_broken_exif_block_leaves_the_image_as_it_is_stored(block: bytes) -> None:
    plain = encode(picture(), ".jpg")
    header = read_header(plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 8) + b"Exif\0\0" + block + plain[2:])
    assert header is not None and header.orientation == 1 and header.shown == (30, 40)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(sorted(ORIENTED)), st.data())
def test_no_damage_ends_in_anything_but_a_header_or_a_value_error(kind: str, data: st.DataObject) -> None:
    damaged = bytearray(ORIENTED[kind](picture(), 6))
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        header = read_header(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))
    except ValueError:
        return
    assert header is None or 1 <= header.orientation <= 8
