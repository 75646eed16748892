"""Ten ways in which a file is no image, each made from a healthy one."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

_PNG_HEADER_AT = 12  # the name of the chunk, which its checksum covers, then width and height


def break_file(way: str, healthy: Path, place: Path) -> Path:
    """Make at ``place``, a path without suffix, what becomes of the image ``healthy`` in one of the ``WAYS``; its path."""
    return WAYS[way](healthy, place)


def _empty(_healthy: Path, place: Path) -> Path:
    return _written(place, ".jpg", b"")


def _cut_jpeg(healthy: Path, place: Path) -> Path:
    whole = _encoded(healthy, ".jpg")
    return _written(place, ".jpg", whole[: len(whole) // 2])


def _cut_png(healthy: Path, place: Path) -> Path:
    whole = _encoded(healthy, ".png")
    return _written(place, ".png", whole[: len(whole) // 2])


def _text(_healthy: Path, place: Path) -> Path:
    return _written(place, ".png", b"This is not an image.\n" * 40)


def _too_large(healthy: Path, place: Path) -> Path:
    return _written(place, ".png", _claiming(_encoded(healthy, ".png"), 100_000, 100_000))


def _no_width(healthy: Path, place: Path) -> Path:
    return _written(place, ".png", _claiming(_encoded(healthy, ".png"), 0, 256))


def _noise_after_magic(_healthy: Path, place: Path) -> Path:
    return _written(place, ".jpg", b"\xff\xd8\xff" + np.random.default_rng(0).bytes(4000))


def _tiff_without_directory(healthy: Path, place: Path) -> Path:
    whole = bytearray(_encoded(healthy, ".tif"))
    whole[4:8] = struct.pack("<I", len(whole) + 1000)
    return _written(place, ".tif", bytes(whole))


def _dangling_link(_healthy: Path, place: Path) -> Path:
    link = place.with_suffix(".jpg")
    link.symlink_to(place.with_suffix(".moved"))
    return link


def _folder(_healthy: Path, place: Path) -> Path:
    folder = place.with_suffix(".png")
    folder.mkdir()
    return folder


WAYS: dict[str, Callable[[Path, Path], Path]] = {
    "empty": _empty,
    "JPEG cut off": _cut_jpeg,
    "PNG cut off": _cut_png,
    "text": _text,
    "100000 x 100000 pixels": _too_large,
    "no width": _no_width,
    "noise after the magic number": _noise_after_magic,
    "TIFF directory beyond the end": _tiff_without_directory,
    "link to nothing": _dangling_link,
    "folder": _folder,
}


def _encoded(healthy: Path, suffix: str) -> bytes:
    return cv2.imencode(suffix, cv2.imread(str(healthy)))[1].tobytes()


def _claiming(png: bytes, width: int, height: int) -> bytes:
    """The PNG with another size in its header, whose checksum is right."""
    kind, rest = png[_PNG_HEADER_AT : _PNG_HEADER_AT + 4], png[_PNG_HEADER_AT + 12 : _PNG_HEADER_AT + 17]
    header = kind + struct.pack(">II", width, height) + rest
    return png[:_PNG_HEADER_AT] + header + struct.pack(">I", zlib.crc32(header)) + png[_PNG_HEADER_AT + 21 :]


def _written(place: Path, suffix: str, data: bytes) -> Path:
    path = place.with_suffix(suffix)
    path.write_bytes(data)
    return path
