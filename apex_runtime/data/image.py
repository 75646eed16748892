"""Any image file as uint8 RGB, or an error that says what is wrong with it.

* The orientation in the EXIF of JPEG, PNG and WebP and in TIFF is applied: the image is what a viewer shows, and ``image_size``
  says the same without decoding.
* Grey and black-and-white become three equal channels, palettes become colours, CMYK is converted by the decoder.
* An alpha channel is dropped, not composited: the colours under it are what the sensor saw, and no background is ours to choose.
* More than 8 bits (16-bit PNG and TIFF, integer and float TIFF) are stretched to 8: the 0.5 and 99.5 percentiles over all
  channels become 0 and 255. The full range of the type would turn 12-bit microscopy and satellite counts black. NaN becomes 0.
  The value that a GeoTIFF gives to pixels without data does not count.
  ``read_picture`` says which values those were.
* Of a TIFF with four bands the first three are read; one with more, or with deep bands in separate planes, is refused.
* The first page of a file with several is read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from mmap import ACCESS_READ, mmap
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

import numpy as np

from apex_runtime.data.image_header import Buffer, Header, read_header
from apex_runtime.errors import ImageError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")

# 900 MB as uint8 RGB and as much again while it is converted: what 8 GB of memory survive. 12000 x 9000 are 108 million.
MAX_PIXELS = 300_000_000

# How OpenCV numbers its flips; orientations above 4 are transposed before.
_FLIPS = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}
_STRETCH = (0.5, 99.5)  # percentiles
_STRETCH_SAMPLES = 1_000_000  # enough for a percentile, and cheap on a large scene
_CHECK = "Open it in an image viewer; save it again as PNG or JPEG, or leave it out."


@dataclass(frozen=True)
class Scaling:
    """The values of a file with more than 8 bits that became 0 and 255."""

    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Picture:
    """``pixels`` uint8 [h,w,3] RGB, and how they were scaled; ``scaling`` is None for a file of 8 bits."""

    pixels: np.ndarray
    scaling: Scaling | None = None


def decode_image(path: Path) -> np.ndarray:
    """The image in a file as uint8 [h,w,3] RGB. Raises ImageError, which names the file, the cause and the remedy."""
    return read_picture(path).pixels


def read_picture(path: Path) -> Picture:
    """The image in a file with the scaling of its values. Raises ImageError, which names the file, the cause and the remedy."""
    with _readable(path):
        data = Path(path).read_bytes()
    return decode_picture(data, str(path))


def image_size(path: Path) -> tuple[int, int]:
    """Height and width in pixels of the image as ``decode_image`` returns it, from the header alone.

    Raises ImageError as that does, except for damage that shows only on decoding.
    """
    with _readable(path), open(path, "rb") as file:
        return _checked_header(_mapped(file), str(path)).shown


def _mapped(file: BinaryIO) -> Buffer:
    """A file of which only the pages that are looked at are read; all of it where it cannot be mapped (empty, some mounts)."""
    try:
        return mmap(file.fileno(), 0, access=ACCESS_READ)
    except (ValueError, OSError):
        return file.read()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for, for ever
            raise ImageError(f"{path}: cannot be read (not a regular file).", "Give the path of an image file.", path=path)
        yield
    except OSError as error:
        cause = f"{path}: cannot be read ({error.strerror or error})."
        raise ImageError(cause, "Check the path and its permissions.", path=path) from error


def decode_picture(data: bytes, name: str) -> Picture:
    """Encoded bytes as a picture; ``name`` stands for them in messages. Raises ImageError."""
    header = _checked_header(data, name)
    cv2 = _opencv()
    encoded = _repaired(data, header)
    # The second reading is for float and 32-bit TIFF, which OpenCV refuses to turn into three channels. Orientation is ours, so
    # that one rule serves every release of OpenCV and ``image_size``; a TIFF is turned by OpenCV, which cannot be told not to.
    for flags in (cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION, cv2.IMREAD_UNCHANGED):
        try:
            image = cv2.imdecode(encoded, flags)
        except (cv2.error, MemoryError):
            image = None
        if image is not None:
            return _to_rgb8(image if header.kind == "TIFF" else _turned(image, header.orientation), header.nodata)
    raise ImageError(f"{name}: this {header.kind} file is damaged or of a kind that cannot be decoded.", _CHECK, path=name)


def _checked_header(data: Buffer, name: str) -> Header:
    if not data:
        raise ImageError(f"{name}: the file is empty (0 bytes).", "Copy it again, or leave it out.", path=name)
    try:
        header = read_header(data)
    except ValueError as error:
        raise ImageError(f"{name}: the file is damaged: {error}.", _CHECK, path=name) from error
    if header is None:
        cause = f"{name}: not an image in JPEG, PNG, BMP, TIFF or WebP (it begins with {data[:8]!r})."
        raise ImageError(cause, "Save it as one of these; the content counts, not the extension.", path=name)
    if header.width <= 0 or header.height <= 0:
        raise ImageError(f"{name}: the {header.kind} header says {header.width}x{header.height} pixels.", _CHECK, path=name)
    if header.width * header.height > MAX_PIXELS:
        size = f"{header.width}x{header.height} pixels, the limit is {MAX_PIXELS // 1_000_000} million"
        raise ImageError(f"{name}: too large: {size}.", "Cut it into smaller images.", path=name)
    if header.obstacle:
        remedy = "Keep one band, or three interleaved: gdal_translate -b 1 -b 2 -b 3 -co INTERLEAVE=PIXEL in.tif out.tif"
        raise ImageError(f"{name}: this {header.kind} file has {header.obstacle}.", remedy, path=name)
    if not header.complete:
        raise ImageError(
            f"{name}: this {header.kind} file is truncated: its end is missing.", "Copy it again, or leave it out.", path=name
        )
    return header


def _repaired(data: bytes, header: Header) -> np.ndarray:
    """The encoded bytes, uint8 [bytes], with what the header says must be changed for OpenCV."""
    if not header.repairs:
        return np.frombuffer(data, np.uint8)
    changed = bytearray(data)
    for at, value in header.repairs:
        changed[at : at + len(value)] = value
    return np.frombuffer(changed, np.uint8)


def _turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels ([h,w] or [h,w,c]) as they are shown; ``orientation`` as in EXIF, 1 to 8."""
    cv2 = _opencv()
    if orientation > 4:
        image = cv2.transpose(image)
    return np.asarray(cv2.flip(image, _FLIPS[orientation])) if orientation in _FLIPS else image


@cache
def _opencv() -> ModuleType:
    """OpenCV, its own log silent about broken files unless the user set its level: the ImageError says it once and better.

    libjpeg, libpng and libtiff inside it write past that log. For a fault they get over (a JPEG with damage inside its scan) the
    picture is used as decoded, and their one line on stderr ("Corrupt JPEG data") names no file: OpenCV passes no warning on, and
    to catch the line would mean to redirect the stderr of the whole process, which other threads write to.
    """
    import cv2

    if "OPENCV_LOG_LEVEL" not in os.environ:
        from cv2.utils import logging

        logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    return cv2


def _to_rgb8(image: np.ndarray, nodata: float | None) -> Picture:
    """What OpenCV returns ([h,w] or [h,w,c] in BGR order, any type) as contiguous uint8 [h,w,3] RGB."""
    if image.ndim == 2:
        image = image[:, :, None]
    scaling = None
    if image.dtype != np.uint8:
        image = image[:, :, :3]
        scaling = percentile_scaling(image, nodata)
        image = rescale(image, scaling)
    if image.shape[2] < 3:
        return Picture(np.repeat(image[:, :, :1], 3, axis=2), scaling)
    cv2 = _opencv()
    return Picture(np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGB)), scaling)


def percentile_scaling(image: np.ndarray, nodata: float | None = None) -> Scaling:
    """The percentiles of finite values, common to all channels, of an array of any shape and more than 8 bits.

    Values equal to ``nodata``, which a GeoTIFF writes where it has none, do not count unless there are no others.
    A constant image keeps its place in the range of its type; one without any finite value gets (0, 1).
    """
    flat = image.reshape(-1)
    sample = flat[:: sample_step(flat.size)].astype(np.float64)
    sample = sample[np.isfinite(sample)]
    if nodata is not None and (sample != nodata).any():
        sample = sample[sample != nodata]
    if sample.size == 0:
        return Scaling(0.0, 1.0)
    low, high = (float(value) for value in np.percentile(sample, _STRETCH))
    if low == high:  # nearly constant: the extremes are all that is left
        low, high = float(sample.min()), float(sample.max())
    if low == high:
        low, high = (0.0, float(np.iinfo(image.dtype).max)) if image.dtype.kind in "iu" else (0.0, max(1.0, abs(low)))
    return Scaling(low, high)


def sample_step(values: int) -> int:
    """Every how many-th of the values of an image, channels innermost, the percentiles are taken of.

    No multiple of 2 or 3: such a step would see the same channel of every pixel it meets.
    """
    step = max(1, values // _STRETCH_SAMPLES)
    while step > 1 and (step % 2 == 0 or step % 3 == 0):
        step -= 1
    return step


def rescale(image: np.ndarray, scaling: Scaling) -> np.ndarray:
    """Values to uint8 of the same shape: ``low`` and below become 0, ``high`` and above 255, NaN 0."""
    low, high = scaling.low, scaling.high
    scaled = (np.nan_to_num(image.astype(np.float32), nan=low, posinf=high, neginf=low) - low) * (255.0 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
