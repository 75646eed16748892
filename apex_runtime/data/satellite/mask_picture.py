"""A picture whose pixel values stand for classes, decoded without any change of a value.

Neither EXIF orientation nor alpha plays a part here: a mask is what was written, pixel for pixel.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apex_runtime.data.image import MAX_PIXELS, _repaired
from apex_runtime.data.image_header import _BITS, _PHOTOMETRIC, Header, _tiff_tags, read_header

Colour = tuple[int, int, int]

_BLACK_AND_WHITE: tuple[Colour, ...] = ((0, 0, 0), (255, 255, 255))


@dataclass(frozen=True, eq=False)
class MaskPicture:
    """``pixels`` uint8 or uint16 [h,w] (values) or uint8 [h,w,3] (RGB); ``palette`` the colours of the values.

    It is that of a palette PNG, black and white for a mask of one bit (decoded as 0 and 255), else empty.
    """

    pixels: np.ndarray
    palette: tuple[Colour, ...] = ()

    @property
    def is_grey(self) -> bool:
        """Whether a pixel is one value."""
        return self.pixels.ndim == 2


def mask_size(path: Path) -> tuple[int, int]:
    """Height and width of a mask from its header. Raises ValueError when it is damaged, OSError when it cannot be read."""
    with path.open("rb") as file:
        return _size(_header(file.read()))


def decode_mask(path: Path) -> MaskPicture:
    """The mask in a file. Raises ValueError that says what is wrong, OSError when the file cannot be read."""
    import cv2

    data = path.read_bytes()
    header = _header(data)
    # IMREAD_UNCHANGED is the one reading that neither turns the picture nor mixes its channels.
    try:
        pixels = cv2.imdecode(_repaired(data, header), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise ValueError("the mask is damaged or of a kind that cannot be decoded")
    if pixels.ndim == 3 and pixels.shape[2] in (1, 2):
        pixels = pixels[:, :, 0]
    if pixels.ndim == 2:
        return MaskPicture(_undo_expansion(_whole(pixels), data), _BLACK_AND_WHITE if _is_one_bit(data, header) else ())
    if pixels.dtype != np.uint8:
        raise ValueError("a colour mask of more than 8 bits per channel")
    return MaskPicture(cv2.cvtColor(np.ascontiguousarray(pixels[:, :, :3]), cv2.COLOR_BGR2RGB), png_palette(data))


def _header(data: bytes) -> Header:
    """The header of a mask that can be read. Raises ValueError."""
    header = read_header(data)
    if header is None:
        raise ValueError("not an image" if data else "the file is empty (0 bytes)")
    if not header.complete:
        raise ValueError(f"this {header.kind} file is truncated")
    if header.obstacle:
        raise ValueError(f"this {header.kind} file has {header.obstacle}")
    if not 0 < header.width * header.height <= MAX_PIXELS:
        raise ValueError(f"{header.width}x{header.height} pixels, the limit is {MAX_PIXELS // 1_000_000} million")
    if header.kind == "TIFF" and (tag := _tiff_tags(data).get(_PHOTOMETRIC)) is not None and tag.value == 0:
        # Some readers invert it and others do not: whoever wrote the mask may have meant either.
        raise ValueError("this TIFF says that 0 is white; write it with PHOTOMETRIC=MINISBLACK, the objects not 0")
    return header


def _is_one_bit(data: bytes, header: Header) -> bool:
    """Whether the values in the file are 0 and 1 only; OpenCV hands them out as 0 and 255."""
    if header.kind == "TIFF":
        tag = _tiff_tags(data).get(_BITS)
        return tag is None or tag.value == 1
    return header.kind == "PNG" and data[24] == 1


def _size(header: Header) -> tuple[int, int]:
    # OpenCV turns a TIFF, and nothing else here.
    return header.shown if header.kind == "TIFF" else (header.height, header.width)


def _whole(pixels: np.ndarray) -> np.ndarray:
    """Float masks hold whole numbers; signed and wide ones become uint16."""
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels
    rounded = np.rint(pixels)
    if not (np.isfinite(pixels).all() and np.array_equal(rounded, pixels) and rounded.min() >= 0 and rounded.max() <= 65535):
        raise ValueError(f"mask values of type {pixels.dtype} that are no whole numbers from 0 to 65535")
    return rounded.astype(np.uint16)


def _undo_expansion(pixels: np.ndarray, data: bytes) -> np.ndarray:
    """The decoder stretches PNG of 2 and 4 bits to the whole byte; a class value of 3 must stay 3. One bit means 0 and 255."""
    depth = data[24] if data.startswith(b"\x89PNG") else 8
    return pixels // (255 // (2**depth - 1)) if depth in (2, 4) else pixels


def png_palette(data: bytes) -> tuple[Colour, ...]:
    """The colours of a palette PNG in order of their index; empty for any other file."""
    if not data.startswith(b"\x89PNG") or data[25] != 3:
        return ()
    at = 8
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if data[at + 4 : at + 8] == b"PLTE":
            chunk = data[at + 8 : at + 8 + length]
            return tuple((chunk[i], chunk[i + 1], chunk[i + 2]) for i in range(0, len(chunk) - 2, 3))
        at += 12 + length
    return ()
