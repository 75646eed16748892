"""Detections as GeoJSON (RFC 7946): polygons in longitude and latitude, for images that know their place on the earth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from apex_runtime.data.scenes.georeference import LON_LAT, Georeference, transform
from apex_runtime.model_info import Category
from apex_runtime.outputs.contours import outlines
from apex_runtime.postprocess.rle import rle_to_roi

_DIGITS = 9  # of a degree: a tenth of a millimetre


def feature_collection(record: dict[str, Any], categories: Sequence[Category], place: Georeference) -> dict[str, Any]:
    """The features of a record of results.jsonl; an object without any pixel has none. Raises DataError without rasterio."""
    names = {category.id: category.name for category in categories}
    features = []
    for item in record["annotations"]:
        mask = rle_to_roi(item["segmentation"])
        if mask is not None:
            polygons = [[_ring(ring, place) for ring in part] for part in outlines(mask)]
            features.append({"type": "Feature", "geometry": _geometry(polygons), "properties": _properties(item, names)})
    return {"type": "FeatureCollection", "features": features}


def _ring(ring: np.ndarray, place: Georeference) -> list[list[float]]:
    """A closed ring, outer ones counterclockwise: what is clockwise on the screen is that on the map, so it is turned round."""
    points = transform(place.to_world(ring[::-1]), place.crs, LON_LAT).round(_DIGITS).tolist()
    return [*points, points[0]]


def _geometry(polygons: list[list[list[list[float]]]]) -> dict[str, Any]:
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}


def _properties(item: dict[str, Any], names: dict[int, str]) -> dict[str, Any]:
    keys = ("id", "image_id", "category_id", "score")
    return {"class": names[item["category_id"]], **{key: item[key] for key in keys}}
