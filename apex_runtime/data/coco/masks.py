"""COCO segmentations as masks, and what is wrong with those that are none.

Polygons are filled by pycocotools, so that training sees the masks that the evaluation sees.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from apex_runtime.data.clipping import clip_ring
from apex_runtime.data.findings import Fault
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.postprocess.rle import rle_to_roi

LARGEST = 1e15  # a coordinate beyond it is no pixel; below it no arithmetic overflows
_LONGEST = 2e7  # px of outline: pycocotools takes 40 bytes for each, and does not look whether it got them
_SPECK = 1e-3  # px2; an area beyond it is none of rounding
_NOT_FINITE = "has a coordinate that is not finite"
_FLAT = 1e-9  # distance of points from a line, as a share of its length, below which they lie on it


class Decoded(NamedTuple):
    """A mask (None: there is none, or no sound one), the sound part of the segmentation, and the faults of the rest."""

    mask: RoiMask | None
    segmentation: Any
    faults: list[tuple[Fault, str]]


def has_segmentation(segmentation: Any) -> bool:
    """Whether there is anything: null, ``[]`` and ``[[]]`` stand for an object that has a box only."""
    return any(segmentation) if isinstance(segmentation, list) else segmentation is not None


def malformed(segmentation: Any, height: int, width: int) -> str:
    """Why a value is neither polygons nor an RLE of the image's size; empty when it is. Numbers may still be NaN."""
    if segmentation is None:
        return ""
    if isinstance(segmentation, dict):
        return _malformed_rle(segmentation, height, width)
    if not isinstance(segmentation, list):
        return "the segmentation is neither polygons nor an RLE"
    for part in segmentation:
        if not isinstance(part, list) or not {int, float}.issuperset(map(type, part)):
            return "the segmentation is neither polygons (lists of numbers) nor an RLE"
        if len(part) % 2:
            return f"a polygon has {len(part)} numbers, which are no pairs x, y"
    return ""


def _malformed_rle(rle: dict[str, Any], height: int, width: int) -> str:
    if rle.get("size") != [height, width]:
        return f"the RLE has the size {rle.get('size')}, the image is {width}x{height} (size is [height, width])"
    counts = rle.get("counts")
    if not isinstance(counts, str) and not (isinstance(counts, list) and {int}.issuperset(map(type, counts))):
        return "the RLE has no counts (a string or a list of integers)"
    return ""


def decode_segmentation(segmentation: Any, height: int, width: int) -> Decoded:
    """Polygons (several parts are one mask) or RLE as a mask cut to its box; the form has been checked (``malformed``)."""
    if not has_segmentation(segmentation):
        return Decoded(None, [], [])
    if isinstance(segmentation, dict):
        return _decode_rle(segmentation)
    return _decode_polygons(segmentation, height, width)


def _decode_rle(rle: dict[str, Any]) -> Decoded:
    try:
        mask = rle_to_roi(rle)
    except (ValueError, OverflowError) as error:
        return Decoded(None, None, [(Fault.MALFORMED, f"broken RLE: {error}")])
    return Decoded(mask, rle, [] if mask is not None else [(Fault.EMPTY_MASK, "the RLE has no pixel")])


def _decode_polygons(polygons: list[list[float]], height: int, width: int) -> Decoded:
    parts = [part for part in polygons if part]
    reasons = [_degenerate(part) for part in parts]
    good = [part for part, reason in zip(parts, reasons, strict=True) if not reason]
    bad = [reason for reason in reasons if reason]
    if not good:
        return Decoded(None, None, [(Fault.DEGENERATE_POLYGON, _of_parts(bad[0], len(bad), len(parts)))])
    cut = [each for each in (_bounded(part, height, width) for part in good) if each]
    longest = 3 * max(height, width) * sum(map(len, cut)) / 2
    if longest > _LONGEST and (outline := sum(map(_steps, cut))) > _LONGEST:
        return Decoded(None, None, [(Fault.MALFORMED, f"the outline of the polygon is {outline:.3g} px long")])
    mask = _fill(cut, height, width)
    if mask is None:
        return Decoded(None, None, [(Fault.EMPTY_MASK, "the polygon fills no pixel of the image")])
    # A stray point beside a good outline, which contour finders leave, takes nothing from the object.
    faults = [(Fault.SMALL_PIECES, _of_parts(bad[0], len(bad), len(parts)) + ", left out")] if bad else []
    return Decoded(mask, good if bad else polygons, faults)


def _of_parts(reason: str, bad: int, parts: int) -> str:
    return f"the polygon {reason}" if parts == 1 else f"{bad} of {parts} polygons: the first {reason}"


def _degenerate(part: list[float]) -> str:
    """Why a polygon encloses nothing; empty when it does."""
    try:
        points = np.array(part, np.float64).reshape(-1, 2)
    except OverflowError:  # Python has no largest integer
        return _NOT_FINITE
    x, y = points[:, 0], points[:, 1]
    with np.errstate(over="ignore", invalid="ignore"):
        doubled_area = x[:-1] @ y[1:] - y[:-1] @ x[1:] + x[-1] * y[0] - y[-1] * x[0]
    # Nearly all polygons leave here. Outlines that cross themselves may have a signed area of 0.
    return "" if _SPECK < abs(doubled_area) < LARGEST else _degenerate_points(points)


def _degenerate_points(points: np.ndarray) -> str:
    if not (np.abs(points) < LARGEST).all():
        return _NOT_FINITE
    distinct = len(set(map(tuple, points.tolist())))
    if distinct < 3:
        return f"has {distinct} distinct points"
    away = points - points[0]
    length = np.abs(away).max()
    x, y = away[np.abs(away).max(axis=1).argmax()] / length
    if np.abs(away[:, 0] / length * y - away[:, 1] / length * x).max() < _FLAT:
        return f"has no area: its {distinct} points lie on one line"
    return ""


def _fill(parts: list[list[float]], height: int, width: int) -> RoiMask | None:
    from pycocotools import mask as coco_mask

    return rle_to_roi(coco_mask.merge(coco_mask.frPyObjects(parts, height, width))) if parts else None


def _steps(part: list[float]) -> float:
    """Pixels along an outline, an edge counted by its longer side."""
    points = np.array(part, np.float64).reshape(-1, 2)
    return float(np.abs(points - np.roll(points, -1, axis=0)).max(axis=1).sum())


def _bounded(part: list[float], height: int, width: int) -> list[float]:
    """The polygon, cut one image side beyond the image where it goes further; empty where nothing is left.

    pycocotools walks every edge in steps of a fifth of a pixel: coordinates in another unit would take all memory.
    """
    side = min(height, width)
    if -side <= min(part) and max(part) <= 2 * side:
        return part  # nearly all: not worth an array
    points = np.array(part, np.float64).reshape(-1, 2)
    low, high = np.array([-width, -height]), np.array([2 * width, 2 * height])
    if (points >= low).all() and (points <= high).all():
        return part
    return [float(value) for value in clip_ring(points, *low, *high).reshape(-1)]
