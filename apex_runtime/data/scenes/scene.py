"""A scene of any size, whole or by windows: the ordinary decoder where it can, rasterio for what is too large for that.

Which of the two reads makes no difference to the pixels, but for scenes of more than 64 million of them in JPEG compression,
whose colours the two spread differently (by half a level on average). Files of more than 8 bits are scaled once per scene.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from apex_runtime.data.image import (
    MAX_PIXELS,
    Picture,
    Scaling,
    image_size,
    percentile_scaling,
    read_picture,
    rescale,
    sample_step,
)
from apex_runtime.data.image_header import Header, read_header
from apex_runtime.data.scenes.georeference import INSTALL, Georeference, quiet, tiff_georeference, xyz_georeference
from apex_runtime.data.scenes.windows import Window
from apex_runtime.errors import ImageError

_WHOLE = 4096 * 4096  # pixels up to which decoding all of a scene for one window is cheap enough
_LARGE = 64_000_000  # pixels from which decoding all of it for one window is worse than colours that differ in rounding
_SAMPLES = 1_000_000  # values that the percentiles are taken of
_Key = tuple[str, int, int]  # path, time of change, bytes: a file that was replaced is read anew


def open_scene(path: Path) -> Scene:
    """The scene in an image file; nothing but its header is read. Raises ImageError."""
    return Scene(Path(path))


class Scene:
    """``height`` and ``width`` in pixels as ``read`` returns them. No file stays open: a scene can be pickled."""

    def __init__(self, path: Path) -> None:
        self.path = path
        header = _tiff_header(path)
        pixels = header.width * header.height if header is not None else 0
        plain = header is not None and header.orientation == 1 and not header.obstacle
        self._windowed = plain and pixels > _WHOLE and has_rasterio() and _is_plain(path, pixels)
        if self._windowed and header is not None:
            self.height, self.width = header.height, header.width
        elif plain and pixels > MAX_PIXELS and not has_rasterio():
            raise ImageError(f"{path}: {pixels // 1_000_000} million pixels need windows.", INSTALL, path=path)
        else:
            self.height, self.width = image_size(path)
        # GDAL does not turn a scene as the decoder does: its coordinates would be those of other pixels.
        self._has_tags = header is not None and header.orientation == 1

    @cached_property
    def georeference(self) -> Georeference | None:
        """Where it lies: from its tags, else from its name; None where neither says so."""
        found = tiff_georeference(self.path) if self._has_tags else None
        return found or xyz_georeference(self.path.stem, self.width, self.height)

    def read(self, window: Window | None = None) -> Picture:
        """A window of the scene (all of it by default), uint8 [h,w,3] RGB. Raises ImageError, also for a window beyond it."""
        if window is not None:
            self._check(window)
        if self._windowed:
            return _read_window(self.path, window or Window(0, 0, self.width, self.height), _scaling(_key(self.path)))
        if window is None:
            return read_picture(self.path)
        with _decoding:  # the cache alone lets each thread decode the same scene
            picture = _last_decoded(_key(self.path))
        rows, columns = slice(window.y, window.y + window.height), slice(window.x, window.x + window.width)
        return Picture(picture.pixels[rows, columns].copy(), picture.scaling)

    def reader(self) -> Callable[[Window], np.ndarray]:
        """A function that reads windows as ``read`` does, for one caller: what it decodes whole, it decodes once and keeps."""
        if self._windowed:
            return lambda window: self.read(window).pixels
        decoded: list[np.ndarray] = []

        def read(window: Window) -> np.ndarray:
            self._check(window)
            if not decoded:
                decoded.append(read_picture(self.path).pixels)
            return decoded[0][window.y : window.y + window.height, window.x : window.x + window.width].copy()

        return read

    def _check(self, window: Window) -> None:
        fits = window.x >= 0 and window.y >= 0 and window.width > 0 and window.height > 0
        if not fits or window.x + window.width > self.width or window.y + window.height > self.height:
            message = f"{self.path}: {window} is not inside of {self.width}x{self.height} pixels."
            raise ImageError(message, "Choose a window inside.", path=self.path)


def has_rasterio() -> bool:
    """Whether the extra ``geo`` is installed; it is not imported."""
    return find_spec("rasterio") is not None


def _tiff_header(path: Path) -> Header | None:
    """The header of a TIFF; None for anything else and for what is broken, which the decoder tells better."""
    from mmap import ACCESS_READ, mmap

    if not path.is_file():
        return None
    try:
        with open(path, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            header = read_header(data)
    except (OSError, ValueError):
        return None
    return header if header is not None and header.kind == "TIFF" else None


def _is_plain(path: Path, pixels: int) -> bool:
    """Whether rasterio hands out the pixels of the decoder: grey (0 is black) or RGB of whole bytes; JPEG where it is large."""
    with _opened(path) as dataset:
        photometric = dataset.profile.get("photometric", "minisblack" if dataset.count < 3 else "rgb")
        accepted = {"minisblack", "rgb", "ycbcr"} if pixels > _LARGE else {"minisblack", "rgb"}
        bits = dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS")
        inverted = dataset.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES"
        real = np.dtype(dataset.dtypes[0]).kind in "uif" and len(set(dataset.dtypes)) == 1 and dataset.dtypes[0] != "int8"
        other = dataset.colorinterp[0].name in ("palette", "cyan")
        return real and not other and not inverted and bits is None and str(photometric).lower() in accepted


class _opened:
    """A dataset of rasterio, open for as long as one reading takes; its errors become ImageError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Any:
        import rasterio

        try:
            with quiet():
                self._dataset = rasterio.open(self._path)
        except rasterio.errors.RasterioError as error:
            raise self._failure(error) from error
        return self._dataset

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        from rasterio.errors import RasterioError

        self._dataset.close()
        if isinstance(error, RasterioError):
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> ImageError:
        return ImageError(f"{self._path}: cannot be read ({error}).", "Copy it again, or leave it out.", path=self._path)


def _key(path: Path) -> _Key:
    try:
        state = path.stat()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}).", "Check the path.", path=path) from error
    return str(path), state.st_mtime_ns, state.st_size


_decoding = Lock()


@lru_cache(maxsize=1)
def _last_decoded(key: _Key) -> Picture:
    return read_picture(Path(key[0]))


def forget_decoded() -> None:
    """Let go of the scene that was decoded last as a whole: hundreds of megabytes, kept for the next window of it."""
    _last_decoded.cache_clear()


def _read_window(path: Path, window: Window, scaling: Scaling | None) -> Picture:
    with _opened(path) as dataset:
        bands = dataset.read(_bands(dataset)[: 3 if dataset.count >= 3 else 1], window=_as_rasterio(window))
    values = np.moveaxis(bands, 0, 2)
    pixels = values if scaling is None else rescale(values, scaling)
    return Picture(np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3))), scaling)


def _bands(dataset: Any) -> list[int]:
    return list(range(1, min(dataset.count, 3) + 1))


def _as_rasterio(window: Window) -> Any:
    from rasterio.windows import Window as RasterioWindow

    return RasterioWindow(window.x, window.y, window.width, window.height)


@lru_cache(maxsize=4096)
def _scaling(key: _Key) -> Scaling | None:
    """The scaling of a scene of more than 8 bits, from a regular sample of its values."""
    with _opened(Path(key[0])) as dataset:
        if dataset.dtypes[0] == "uint8":
            return None
        values = _decimated(dataset) if dataset.height * dataset.width > MAX_PIXELS else _strips(dataset)
        return percentile_scaling(values, dataset.nodata)


def _decimated(dataset: Any) -> np.ndarray:
    factor = int(np.ceil(np.sqrt(dataset.height * dataset.width / _SAMPLES)))
    shape = (-(-dataset.height // factor), -(-dataset.width // factor))
    return np.asarray(dataset.read(_bands(dataset), out_shape=(len(_bands(dataset)), *shape)))


def _strips(dataset: Any) -> np.ndarray:
    """The very values that the decoder takes its percentiles of, read strip by strip."""
    bands = _bands(dataset)[::-1]  # in the order of OpenCV
    if len(bands) == 1 and dataset.dtypes[0] == "uint16":
        bands = bands * 3  # OpenCV makes three channels of it
    size = dataset.height * dataset.width * len(bands)
    step, rows, found, at = sample_step(size), max(1, 8_000_000 // (dataset.width * len(bands))), [], 0
    for top in range(0, dataset.height, rows):
        area = _as_rasterio(Window(0, top, dataset.width, min(rows, dataset.height - top)))
        values = np.moveaxis(dataset.read(bands, window=area), 0, 2)
        found.append(values.reshape(-1)[-at % step :: step])
        at += values.size
    return np.concatenate(found)
