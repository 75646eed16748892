"""The size of an image from its first bytes, so that a bomb is refused and a cut file noticed before anything is decoded."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

# JPEG frame headers: SOF0..SOF15 without DHT (C4), JPG (C8) and DAC (CC). ITU T.81, table B.1.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset([0x01, *range(0xD0, 0xD9)])  # markers without a length
_TIFF_TYPES = {3: "H", 4: "I", 16: "Q"}  # SHORT, LONG, LONG8


class Header(NamedTuple):
    """What a file says about itself; ``complete`` is False when its end is visibly missing."""

    kind: str
    width: int
    height: int
    complete: bool


def read_header(data: bytes) -> Header | None:
    """The header of JPEG, PNG, BMP, TIFF or WebP bytes; None for anything else. Raises ValueError when it is cut or broken."""
    reader = next((function for magic, function in _READERS if data.startswith(magic)), None)
    if reader is None or (reader is _webp and data[8:12] != b"WEBP"):
        return None
    try:
        return reader(data)
    except (struct.error, IndexError) as error:
        raise ValueError("its header is cut off") from error


def _png(data: bytes) -> Header:
    width, height = struct.unpack_from(">II", data, 16)
    return Header("PNG", width, height, data.rfind(b"IEND") > 16)


def _jpeg(data: bytes) -> Header:
    at = 2
    while True:
        at = data.find(b"\xff", at)
        if at < 0:
            raise ValueError("its header is cut off")
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _JPEG_BARE:
            at += 2
        elif marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            # The end marker of a thumbnail lies before the frame header; inside the scan FF is always followed by 0 or RSTn.
            return Header("JPEG", width, height, data.rfind(b"\xff\xd9") > at)
        elif marker in (0xDA, 0xD9):
            raise ValueError("it has no JPEG frame header")
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]


def _bmp(data: bytes) -> Header:
    if struct.unpack_from("<I", data, 14)[0] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return Header("BMP", abs(width), abs(height), len(data) > struct.unpack_from("<I", data, 10)[0])


def _tiff(data: bytes) -> Header:
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in (data[2], data[3])
    (first,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, first)
    size, value_at, start = (20, 12, first + 8) if big else (12, 8, first + 2)
    sides = {}
    for entry in range(start, start + count * size, size):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in (256, 257):
            if kind not in _TIFF_TYPES:
                raise ValueError("its TIFF directory is broken")
            (sides[tag],) = struct.unpack_from(order + _TIFF_TYPES[kind], data, entry + value_at)
        if len(sides) == 2:
            return Header("TIFF", sides[256], sides[257], True)
    raise ValueError("its TIFF directory names no size")


def _webp(data: bytes) -> Header:
    complete = len(data) >= struct.unpack_from("<I", data, 4)[0] + 8
    chunk = data[12:16]
    if chunk == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
    elif chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    return Header("WebP", width, height, complete)


_READERS: tuple[tuple[bytes, Callable[[bytes], Header]], ...] = (
    (b"\xff\xd8\xff", _jpeg),
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"BM", _bmp),
    (b"II*\0", _tiff),
    (b"MM\0*", _tiff),
    (b"II+\0", _tiff),  # BigTIFF
    (b"MM\0+", _tiff),
    (b"RIFF", _webp),
)
