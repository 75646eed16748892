"""Where the pixels of a scene lie on the earth: from the tags of a GeoTIFF, or from the name of a web-map tile."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apex_runtime.data.clipping import clip_ring
from apex_runtime.data.scenes.polygon import ring_area
from apex_runtime.errors import DataError

WEB_MERCATOR = "EPSG:3857"
LON_LAT = "EPSG:4326"
INSTALL = 'Install the extra: pip install "apex-x[geo]"'

_RADIUS = 6378137.0  # of the sphere of web mercator, in metres
_TILE = re.compile(r"(?:^|[-_. ])(0|[1-9]\d*)-(0|[1-9]\d*)-([1-9]\d)$")  # x-y-z
_ZOOMS = range(10, 31)  # imagery in which anything can be seen; "scene_1-2-3" is no tile
_POLE = 0.03  # share of the map, at its upper and lower edge, that no imagery shows: beyond 84 degrees. 15-11-23 is a date


@dataclass(frozen=True)
class Georeference:
    """``affine`` (a, b, c, d, e, f): x = a*column + b*row + c and y = d*column + e*row + f in the system ``crs``.

    ``crs`` is a code such as EPSG:3857, or WKT. The scene has ``height`` x ``width`` pixels; (0, 0) is the corner of the first.
    """

    crs: str
    affine: tuple[float, float, float, float, float, float]
    height: int
    width: int

    def to_world(self, pixels: np.ndarray) -> np.ndarray:
        """Columns and rows [n,2] as coordinates [n,2] of ``crs``."""
        a, b, c, d, e, f = self.affine
        return np.asarray(pixels, np.float64) @ np.array([[a, d], [b, e]]) + np.array([c, f])

    def from_world(self, points: np.ndarray) -> np.ndarray:
        """Coordinates [n,2] of ``crs`` as columns and rows [n,2]."""
        a, b, c, d, e, f = self.affine
        return (np.asarray(points, np.float64) - np.array([c, f])) @ np.linalg.inv(np.array([[a, d], [b, e]]))

    def to_pixels(self, lonlat: np.ndarray) -> np.ndarray:
        """Longitude and latitude in degrees [n,2] as columns and rows [n,2]. Raises DataError where rasterio is needed."""
        return self.from_world(transform(lonlat, LON_LAT, self.crs))

    @property
    def footprint(self) -> np.ndarray:
        """Longitude and latitude in degrees of the four corners, [4,2]."""
        corners = np.array([[0, 0], [self.width, 0], [self.width, self.height], [0, self.height]])
        return transform(self.to_world(corners), self.crs, LON_LAT)


def overlap(first: Georeference, second: Georeference) -> float:
    """Square pixels of the first scene that the second covers too; edges are taken as straight in the first."""
    ring = first.to_pixels(second.footprint)
    return ring_area(clip_ring(ring, 0, 0, first.width, first.height))


def transform(points: np.ndarray, source: str, target: str) -> np.ndarray:
    """Points [n,2] of one system in another (longitude first); web mercator in closed form, the rest by rasterio (DataError)."""
    points = np.asarray(points, np.float64).reshape(-1, 2)
    if source == target or len(points) == 0:
        return points
    if (source, target) == (LON_LAT, WEB_MERCATOR):
        latitude = np.radians(points[:, 1])
        return _RADIUS * np.stack([np.radians(points[:, 0]), np.arctanh(np.sin(latitude))], axis=1)
    if (source, target) == (WEB_MERCATOR, LON_LAT):
        return np.degrees(np.stack([points[:, 0] / _RADIUS, np.arcsin(np.tanh(points[:, 1] / _RADIUS))], axis=1))
    try:
        from rasterio.errors import RasterioError
        from rasterio.warp import transform as warp
    except ImportError as error:
        raise DataError("coordinates other than web mercator need rasterio.", INSTALL) from error
    try:
        x, y = warp(source, target, points[:, 0], points[:, 1])
    except (RasterioError, ValueError) as error:
        raise DataError(
            f"coordinates cannot be brought from {source[:60]} to {target[:60]}: {error}.", "Check the CRS."
        ) from error
    return np.stack([np.asarray(x, np.float64), np.asarray(y, np.float64)], axis=1)


def xyz_georeference(stem: str, width: int, height: int) -> Georeference | None:
    """The place of a web-map tile whose name ends in x-y-z (``OAM-386690-220241-19``); None for any other name."""
    match = _TILE.search(stem)
    x, y, zoom = (int(number) for number in match.groups()) if match else (0, 0, 0)
    if zoom not in _ZOOMS or x >= 2**zoom or not _POLE < y / 2**zoom < 1 - _POLE:
        return None
    span = 2 * np.pi * _RADIUS / 2**zoom
    left, top = x * span - np.pi * _RADIUS, np.pi * _RADIUS - y * span
    return Georeference(WEB_MERCATOR, (span / width, 0.0, float(left), 0.0, -span / height, float(top)), height, width)


def tiff_georeference(path: Path) -> Georeference | None:
    """What the tags of a GeoTIFF say; None where there are none, or where rasterio is not installed or cannot read it."""
    try:
        import rasterio
    except ImportError:
        return None
    try:
        with quiet(), rasterio.open(path) as dataset:
            crs, affine = dataset.crs, dataset.transform
            height, width = dataset.height, dataset.width
    except (rasterio.errors.RasterioError, rasterio.errors.CRSError):
        return None
    if not crs or affine.is_identity or affine.determinant == 0:
        return None
    name = WEB_MERCATOR if crs.to_epsg() == 3857 else crs.to_wkt()
    return Georeference(name, (affine.a, affine.b, affine.c, affine.d, affine.e, affine.f), height, width)


@contextmanager
def quiet() -> Iterator[None]:
    """rasterio without its warning about scenes that have no place: here that is a value, None."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no geotransform")
        yield
