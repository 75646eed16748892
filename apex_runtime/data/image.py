"""Any image file as uint8 RGB, or an error that says what is wrong with it.

* EXIF orientation is applied: the image is what a viewer shows.
* Grey and black-and-white become three equal channels, palettes become colours, CMYK is converted by the decoder.
* An alpha channel is dropped, not composited: the colours under it are what the sensor saw, and no background is ours to choose.
* More than 8 bits (16-bit PNG and TIFF, integer and float TIFF) are stretched to 8: the 0.5 and 99.5 percentiles over all
  channels become 0 and 255. The full range of the type would turn 12-bit microscopy and satellite counts black. NaN becomes 0.
  ``read_picture`` says which values those were.
* The first page of a file with several is read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np

from apex_runtime.data.image_header import Header, read_header
from apex_runtime.errors import ImageError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")

# 900 MB as uint8 RGB and as much again while it is converted: what 8 GB of memory survive. 12000 x 9000 are 108 million.
MAX_PIXELS = 300_000_000

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
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ImageError(
            f"{path}: cannot be read ({error.strerror or error}).", "Check the path and its permissions.", path=path
        ) from error
    return decode_picture(data, str(path))


def decode_bytes(data: bytes, name: str) -> np.ndarray:
    """Encoded bytes as uint8 [h,w,3] RGB; ``name`` stands for them in messages. Raises ImageError."""
    return decode_picture(data, name).pixels


def decode_picture(data: bytes, name: str) -> Picture:
    """Encoded bytes as a picture; ``name`` stands for them in messages. Raises ImageError."""
    header = _checked_header(data, name)
    cv2 = _opencv()
    encoded = np.frombuffer(data, np.uint8)
    # The second reading is for float and 32-bit TIFF, which OpenCV refuses to turn into three channels.
    for flags in (cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH, cv2.IMREAD_UNCHANGED):
        try:
            image = cv2.imdecode(encoded, flags)
        except (cv2.error, MemoryError):
            image = None
        if image is not None:
            return _to_rgb8(image)
    raise ImageError(f"{name}: this {header.kind} file is damaged or of a kind that cannot be decoded.", _CHECK, path=name)


def _checked_header(data: bytes, name: str) -> Header:
    if not data:
        raise ImageError(f"{name}: the file is empty (0 bytes).", "Copy it again, or leave it out.", path=name)
    try:
        header = read_header(data)
    except ValueError as error:
        raise ImageError(f"{name}: the file is damaged: {error}.", _CHECK, path=name) from error
    if header is None:
        accepted = "JPEG, PNG, BMP, TIFF and WebP are read; the content counts, not the extension."
        raise ImageError(f"{name}: not an image (it begins with {data[:8]!r}).", accepted, path=name)
    if header.width <= 0 or header.height <= 0:
        raise ImageError(f"{name}: the {header.kind} header says {header.width}x{header.height} pixels.", _CHECK, path=name)
    if header.width * header.height > MAX_PIXELS:
        size = f"{header.width}x{header.height} pixels, the limit is {MAX_PIXELS // 1_000_000} million"
        raise ImageError(f"{name}: too large: {size}.", "Cut it into smaller images.", path=name)
    if not header.complete:
        raise ImageError(
            f"{name}: this {header.kind} file is truncated: its end is missing.", "Copy it again, or leave it out.", path=name
        )
    return header


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


def _to_rgb8(image: np.ndarray) -> Picture:
    """What OpenCV returns ([h,w] or [h,w,c] in BGR order, any type) as contiguous uint8 [h,w,3] RGB."""
    if image.ndim == 2:
        image = image[:, :, None]
    scaling = None
    if image.dtype != np.uint8:
        image = image[:, :, :3]
        scaling = percentile_scaling(image)
        image = rescale(image, scaling)
    if image.shape[2] < 3:
        return Picture(np.repeat(image[:, :, :1], 3, axis=2), scaling)
    if image.shape[2] > 4:  # more bands than colours: the first three
        image = np.ascontiguousarray(image[:, :, :3])
    cv2 = _opencv()
    return Picture(np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGB)), scaling)


def percentile_scaling(image: np.ndarray) -> Scaling:
    """The percentiles of finite values, common to all channels, of an array of any shape and more than 8 bits.

    A constant image keeps its place in the range of its type; one without any finite value gets (0, 1).
    """
    flat = image.reshape(-1)
    sample = flat[:: max(1, flat.size // _STRETCH_SAMPLES)].astype(np.float64)
    sample = sample[np.isfinite(sample)]
    if sample.size == 0:
        return Scaling(0.0, 1.0)
    low, high = (float(value) for value in np.percentile(sample, _STRETCH))
    if low == high:  # nearly constant: the extremes are all that is left
        low, high = float(sample.min()), float(sample.max())
    if low == high:
        low, high = (0.0, float(np.iinfo(image.dtype).max)) if image.dtype.kind in "iu" else (0.0, max(1.0, abs(low)))
    return Scaling(low, high)


def rescale(image: np.ndarray, scaling: Scaling) -> np.ndarray:
    """Values to uint8 of the same shape: ``low`` and below become 0, ``high`` and above 255, NaN 0."""
    low, high = scaling.low, scaling.high
    scaled = (np.nan_to_num(image.astype(np.float32), nan=low, posinf=high, neginf=low) - low) * (255.0 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
