"""The size of an image from its first bytes, so that a bomb is refused and a cut file noticed before anything is decoded."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from mmap import mmap
from typing import NamedTuple

Buffer = bytes | mmap  # of a mapped file only the pages that are looked at are read

# JPEG frame headers: SOF0..SOF15 without DHT (C4), JPG (C8) and DAC (CC). ITU T.81, table B.1.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset([0x01, *range(0xD0, 0xD9)])  # markers without a length
_TIFF_TYPES = {2: "c", 3: "H", 4: "I", 16: "Q"}  # ASCII, SHORT, LONG, LONG8
_TIFF_SIZES = {2: 1, 3: 2, 4: 4, 16: 8}
# TIFF 6.0 tags. EXIF blocks have the orientation.
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _ORIENTATION, _BANDS, _PLANAR, _TILE, _EXTRA = 256, 257, 258, 262, 274, 277, 284, 322, 338
_NODATA = 42113  # GDAL's: the value of pixels without data, as text
_NODATA_CHARACTERS = 32  # a double has fewer
_TAGS = (_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _ORIENTATION, _BANDS, _PLANAR, _TILE, _EXTRA, _NODATA)
_PRIVATE = 65000  # a tag that means nothing
_EXIF = b"Exif\0\0"
# Segments, chunks or directory entries that are looked at: no writer comes near, and a file that is made of nothing else would
# keep the interpreter's lock for seconds, with a server that waits for it.
_MOST_PARTS = 200_000


class Header(NamedTuple):
    """What a file says about itself, sizes in pixels as stored; ``complete`` is False when its end is visibly missing."""

    kind: str
    width: int
    height: int
    complete: bool
    orientation: int = 1  # 1 to 8: which side of the stored rows is up (EXIF 2.32, 4.6.4 A); TIFF has the same tag
    obstacle: str = ""  # what this file has that OpenCV refuses or, worse, reads wrongly without a word
    repairs: tuple[tuple[int, bytes], ...] = ()  # places and bytes to write there so that OpenCV reads the colours as they are
    nodata: float | None = None  # the value of pixels without data, in a GeoTIFF that names one

    @property
    def shown(self) -> tuple[int, int]:
        """Height and width as a viewer shows the image."""
        return (self.width, self.height) if self.orientation > 4 else (self.height, self.width)


def read_header(data: Buffer) -> Header | None:
    """The header of JPEG, PNG, BMP, TIFF or WebP bytes; None for anything else. Raises ValueError when it is cut or broken."""
    reader = next((function for magic, function in _READERS if data[: len(magic)] == magic), None)
    if reader is None or (reader is _webp and data[8:12] != b"WEBP"):
        return None
    try:
        return reader(data)
    except (struct.error, IndexError) as error:
        raise ValueError("its header is cut off") from error


def _png(data: Buffer) -> Header:
    width, height = struct.unpack_from(">II", data, 16)
    complete = data.rfind(b"IEND") > 16
    return Header("PNG", width, height, complete, _exif_orientation(_png_exif(data)) if complete else 1)


def _png_exif(data: Buffer) -> bytes:
    """The eXIf chunk, which may stand before or after the pixels."""
    at = 8
    for _ in range(_MOST_PARTS):
        if at + 8 > len(data):
            break
        (length,) = struct.unpack_from(">I", data, at)
        if data[at + 4 : at + 8] == b"eXIf":
            return data[at + 8 : at + 8 + length]
        at += 12 + length
    return b""


def _jpeg(data: Buffer) -> Header:
    at, exif = 2, b""
    for _ in range(_MOST_PARTS):
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
            return Header("JPEG", width, height, data.rfind(b"\xff\xd9") > at, _exif_orientation(exif))
        elif marker in (0xDA, 0xD9):
            raise ValueError("it has no JPEG frame header")
        else:
            (length,) = struct.unpack_from(">H", data, at + 2)
            if marker == 0xE1 and not exif and data[at + 4 : at + 10] == _EXIF:
                exif = data[at + 10 : at + 2 + length]
            at += 2 + length
    raise ValueError("its header has too many parts")


def _bmp(data: Buffer) -> Header:
    if struct.unpack_from("<I", data, 14)[0] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return Header("BMP", abs(width), abs(height), len(data) > struct.unpack_from("<I", data, 10)[0])


class _Tag(NamedTuple):
    """The first value of a TIFF tag, where it stands in the file, where its directory entry does, and how (for struct)."""

    value: int
    at: int
    entry: int
    code: str


def _tiff(data: Buffer) -> Header:
    tags = _tiff_tags(data)
    if _WIDTH not in tags or _HEIGHT not in tags:
        raise ValueError("its TIFF directory names no size")
    width, height, orientation = tags[_WIDTH].value, tags[_HEIGHT].value, _valid_orientation(tags)
    repairs, nodata = tuple(_tiff_repairs(tags)), _tiff_nodata(data, tags)
    return Header("TIFF", width, height, True, orientation, _tiff_obstacle(tags), repairs, nodata)


def _tiff_nodata(data: Buffer, tags: dict[int, _Tag]) -> float | None:
    """The number in the tag of GDAL; None without one and for a text that is no number."""
    if _NODATA not in tags:
        return None
    text = data[tags[_NODATA].at : tags[_NODATA].at + _NODATA_CHARACTERS].split(b"\0")[0]
    try:
        return float(text)
    except ValueError:
        return None


def _tiff_obstacle(tags: dict[int, _Tag]) -> str:
    """OpenCV refuses five bands. Others it fills with memory that was lying around, or cuts to 8 bits (measured with 5.0)."""
    bands, bits, planar = (tags[tag].value if tag in tags else 1 for tag in (_BANDS, _BITS, _PLANAR))
    if bands > 4:
        return f"{bands} bands, at most 4 are read"
    if planar == 2 and bands > 1 and bits > 8:
        return f"{bands} bands of {bits} bits in separate planes, only interleaved ones are read"
    if bands == 2 and (_TILE in tags or planar == 2 or bits > 8):
        return "2 bands in tiles, in planes or of more than 8 bits, only interleaved rows of 8 bits are read"
    return ""


def _tiff_repairs(tags: dict[int, _Tag]) -> Iterator[tuple[int, bytes]]:
    """Where libtiff would blend colours with an alpha band, or take the first of several bands for a grey image.

    Told of no extra bands and of RGB, it hands out the first three as they are.
    """
    extra, colours, bands = tags.get(_EXTRA), tags.get(_PHOTOMETRIC), tags.get(_BANDS)
    if bands is None or bands.value < 3 or colours is None or colours.value not in (1, 2):  # grey and RGB
        return
    if extra is not None:
        yield extra.entry, struct.pack(extra.code[0] + "H", _PRIVATE)
    yield colours.at, struct.pack(colours.code, 2)


def _tiff_tags(data: Buffer) -> dict[int, _Tag]:
    """What we look at in the first directory of a TIFF or of an EXIF block, which is built like one.

    Raises ValueError, struct.error or IndexError when it is broken.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in (data[2], data[3])
    place = order + ("Q" if big else "I")
    (first,) = struct.unpack_from(place, data, 8 if big else 4)
    (entries,) = struct.unpack_from(order + ("Q" if big else "H"), data, first)
    if entries > _MOST_PARTS:
        raise ValueError("its TIFF directory has too many entries")
    size, value_at, start = (20, 12, first + 8) if big else (12, 8, first + 2)
    tags: dict[int, _Tag] = {}
    for entry in range(start, start + entries * size, size):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in _TAGS:
            if kind not in _TIFF_TYPES:
                raise ValueError("its TIFF directory is broken")
            (count,) = struct.unpack_from(place, data, entry + 4)
            inline = count * _TIFF_SIZES[kind] <= size - value_at
            at = entry + value_at if inline else struct.unpack_from(place, data, entry + value_at)[0]
            code = order + _TIFF_TYPES[kind]
            tags[tag] = _Tag(struct.unpack_from(code, data, at)[0], at, entry, code)
    return tags


def _exif_orientation(block: bytes) -> int:
    """The orientation in an EXIF block, 1 where it has none or is broken: a viewer shows such an image as it is stored."""
    try:
        return _valid_orientation(_tiff_tags(block.removeprefix(_EXIF)))
    except (ValueError, struct.error, IndexError):
        return 1


def _valid_orientation(tags: dict[int, _Tag]) -> int:
    tag = tags.get(_ORIENTATION)
    return tag.value if tag is not None and 1 <= tag.value <= 8 else 1


def _webp(data: Buffer) -> Header:
    complete = len(data) >= struct.unpack_from("<I", data, 4)[0] + 8
    chunk, exif = data[12:16], b""
    if chunk == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
        exif = _webp_exif(data)
    elif chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    return Header("WebP", width, height, complete, _exif_orientation(exif))


def _webp_exif(data: Buffer) -> bytes:
    at = 12
    for _ in range(_MOST_PARTS):
        if at + 8 > len(data):
            break
        (length,) = struct.unpack_from("<I", data, at + 4)
        if data[at : at + 4] == b"EXIF":
            return data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
    return b""


_READERS: tuple[tuple[bytes, Callable[[Buffer], Header]], ...] = (
    (b"\xff\xd8\xff", _jpeg),
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"BM", _bmp),
    (b"II*\0", _tiff),
    (b"MM\0*", _tiff),
    (b"II+\0", _tiff),  # BigTIFF
    (b"MM\0+", _tiff),
    (b"RIFF", _webp),
)
