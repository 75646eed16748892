"""Image files made byte by byte or by OpenCV: every kind that a user may have, without a second imaging library."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np


def picture(height: int = 30, width: int = 40) -> np.ndarray:
    """Smooth colours, all different at the corners, so that a flip, a turn or swapped channels would show."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, 255 - x * 200 // width], -1).astype(np.uint8)


def encode(image: np.ndarray, extension: str, parameters: list[int] | None = None) -> bytes:
    """RGB, RGBA or grey pixels as OpenCV writes them."""
    if image.ndim == 3:
        order = [2, 1, 0, 3] if image.shape[2] == 4 else [2, 1, 0]
        image = np.ascontiguousarray(image[:, :, order])
    return cv2.imencode(extension, image, parameters or [])[1].tobytes()


def png(width: int, height: int, depth: int, colour: int, rows: bytes, palette: bytes = b"", transparency: bytes = b"") -> bytes:
    """A PNG of unpacked rows, each with its filter byte."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    middle = png_chunk(b"PLTE", palette) if palette else b""
    middle += png_chunk(b"tRNS", transparency) if transparency else b""
    pixels = png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + middle + pixels + png_chunk(b"IEND", b"")


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk with length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def exif(orientation: int, order: str = ">") -> bytes:
    """An EXIF block that says nothing but the orientation."""
    magic = b"MM\0*" if order == ">" else b"II*\0"
    entry = struct.pack(order + "HHIHH", 274, 3, 1, orientation, 0)
    return magic + struct.pack(order + "IH", 8, 1) + entry + bytes(4)


def oriented_jpeg(image: np.ndarray, orientation: int) -> bytes:
    """JPEG with an APP1 segment."""
    plain, block = encode(image, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, 95]), b"Exif\0\0" + exif(orientation)
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]


def oriented_png(image: np.ndarray, orientation: int) -> bytes:
    """PNG with an eXIf chunk before the pixels."""
    plain = encode(image, ".png")
    return plain[:33] + png_chunk(b"eXIf", exif(orientation, "<")) + plain[33:]


def oriented_png_at_the_end(image: np.ndarray, orientation: int) -> bytes:
    """PNG with an eXIf chunk after the pixels."""
    plain = encode(image, ".png")
    return plain[:-12] + png_chunk(b"eXIf", exif(orientation)) + plain[-12:]


def oriented_webp(image: np.ndarray, orientation: int) -> bytes:
    """WebP in the extended form, with an EXIF chunk."""
    plain, block = encode(image, ".webp"), exif(orientation)
    sides = b"".join((side - 1).to_bytes(3, "little") for side in (image.shape[1], image.shape[0]))
    body = b"WEBPVP8X" + struct.pack("<IBBH", 10, 8, 0, 0) + sides + plain[12:]
    body += b"EXIF" + struct.pack("<I", len(block)) + block
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff(
    image: np.ndarray,
    orientation: int = 1,
    order: str = "<",
    big: bool = False,
    tile: int = 0,
    bits: int = 0,
    planes: bool = False,
    more: dict[int, list[int]] | None = None,
) -> bytes:
    """Pixels [h,w] or [h,w,c] of any type as an uncompressed TIFF or BigTIFF, in strips or in square tiles.

    ``bits`` of 1 takes packed rows of 8 pixels to the byte; ``planes`` separates the bands; ``more`` adds or replaces tags.
    """
    height, width, bands = (*image.shape, 1)[:3]
    kind = image.dtype.newbyteorder(order)
    parts = [image[:, :, band] for band in range(bands)] if planes else [image]
    blocks = [block for part in parts for block in (_tiles(part, tile) if tile else [part])]
    pixels = [np.ascontiguousarray(block).astype(kind).tobytes() for block in blocks]
    sample_format = {"u": 1, "i": 2, "f": 3}[image.dtype.kind]
    tags: dict[int, list[int]] = {
        256: [width * 8 if bits == 1 else width],
        257: [height],
        258: [bits or image.dtype.itemsize * 8] * bands,
        259: [1],
        262: [2 if bands >= 3 else 1],
        274: [orientation],
        277: [bands],
        284: [2 if planes else 1],
        339: [sample_format] * bands,
    }
    if bands in (2, 4) or bands > 4:
        tags[338] = [0] * (bands - 3 if bands > 3 else 1)
    if tile:
        tags |= {322: [tile], 323: [tile]}
    else:
        tags[278] = [height]
    return _tiff_file(tags | (more or {}), pixels, (324, 325) if tile else (273, 279), order, big)


def _tiles(image: np.ndarray, tile: int) -> list[np.ndarray]:
    height, width = image.shape[:2]
    padded = np.pad(image, [(0, -height % tile), (0, -width % tile), *[(0, 0)] * (image.ndim - 2)])
    rows, columns = range(0, height, tile), range(0, width, tile)
    return [padded[y : y + tile, x : x + tile] for y in rows for x in columns]


def _tiff_file(tags: dict[int, list[int]], pixels: list[bytes], places: tuple[int, int], order: str, big: bool) -> bytes:
    """Header, pixels, long values, directory."""
    head, entry_size, inline = (16, 20, 8) if big else (8, 12, 4)
    body, starts = b"", []
    for block in pixels:
        starts.append(head + len(body))
        body += block + bytes(len(block) % 2)
    tags = tags | {places[0]: starts, places[1]: [len(block) for block in pixels]}
    entries = b""
    for tag in sorted(tags):
        code, size = ("I", 4) if tag in (*places, 256, 257, 278) else ("H", 2)
        raw = struct.pack(f"{order}{len(tags[tag])}{code}", *tags[tag])
        if len(raw) > inline:
            value = struct.pack(order + ("Q" if big else "I"), head + len(body))
            body += raw + bytes(len(raw) % 2)
        else:
            value = raw.ljust(inline, b"\0")
        entries += struct.pack(order + ("HHQ" if big else "HHI"), tag, {2: 3, 4: 4}[size], len(tags[tag])) + value
    assert len(entries) == entry_size * len(tags)
    magic = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "H", 43 if big else 42)
    first = head + len(body)
    header = magic + (struct.pack(order + "HHQ", 8, 0, first) if big else struct.pack(order + "I", first))
    count = struct.pack(order + ("Q" if big else "H"), len(tags))
    return header + body + count + entries + bytes(8 if big else 4)


def oriented_tiff(image: np.ndarray, orientation: int) -> bytes:
    """TIFF with its own orientation tag."""
    return tiff(image, orientation)


def oriented_big_tiff(image: np.ndarray, orientation: int) -> bytes:
    """BigTIFF in the other byte order, with its own orientation tag."""
    return tiff(image, orientation, ">", big=True)


def oriented_deep_tiff(image: np.ndarray, orientation: int) -> bytes:
    """16-bit TIFF with its own orientation tag."""
    return tiff(image.astype(np.uint16) * 257, orientation)


ORIENTED: dict[str, Callable[[np.ndarray, int], bytes]] = {
    "jpeg": oriented_jpeg,
    "png": oriented_png,
    "png_end": oriented_png_at_the_end,
    "webp": oriented_webp,
    "tiff": oriented_tiff,
    "big_tiff": oriented_big_tiff,
    "deep_tiff": oriented_deep_tiff,
}
