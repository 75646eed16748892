"""Polygons with holes: cut to a rectangle, measured, and filled.

A ring is float64 [n,2] of x, y without its first point repeated (a repeated one does no harm); a part is an outer ring and its
holes; an object has one part or several.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apex_runtime.data.clipping import Ring, clip_ring
from apex_runtime.data.coco.masks import decode_segmentation
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.data.scenes.windows import Window

Part = Sequence[Ring]


def clip_part(part: Part, height: int, width: int) -> list[Ring]:
    """A part cut to an image; empty where nothing of its outer ring is left."""
    rings = [clip_ring(ring, 0, 0, width, height) for ring in part]
    return [ring for ring in rings if len(ring)] if rings and len(rings[0]) else []


def ring_area(ring: Ring) -> float:
    """Enclosed square pixels, whatever the direction of the ring."""
    if len(ring) < 3:
        return 0.0
    x, y = (ring - ring[0]).T  # near the origin, where nothing cancels
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def area(parts: Sequence[Part]) -> float:
    """Square pixels of an object: outer rings without their holes."""
    return sum(ring_area(part[0]) - sum(map(ring_area, part[1:])) for part in parts if part)


def rasterise(parts: Sequence[Part], height: int, width: int, window: Window | None = None) -> RoiMask | None:
    """The pixels of an object in an image of that size, by the rule of pycocotools; None where there is none.

    With a ``window`` only that is filled, in its coordinates: a huge polygon costs no more than the window.
    """
    view = window or Window(0, 0, width, height)
    corner = np.array([view.x, view.y], np.float64)
    moved = [[ring - corner for ring in part] for part in parts if len(part)]
    whole = _filled([part[0] for part in moved], view)
    if whole is None or all(len(part) == 1 for part in moved):
        return whole
    bits = np.zeros_like(whole.bits)
    for part in moved:
        outer, holes = _filled(part[:1], view), _filled(part[1:], view)
        inside = _on(outer, whole)
        bits |= inside & ~_on(holes, whole) & 1
    return _tight(RoiMask(whole.x, whole.y, bits))


def _filled(rings: Sequence[Ring], view: Window) -> RoiMask | None:
    flat = [ring.reshape(-1).tolist() for ring in rings]
    return decode_segmentation(flat, view.height, view.width).mask


def _on(mask: RoiMask | None, canvas: RoiMask) -> np.ndarray:
    """A mask on the box of another, uint8."""
    rows, columns = canvas.bits.shape
    if mask is None:
        return np.zeros((rows, columns), np.uint8)
    return RoiMask(mask.x - canvas.x, mask.y - canvas.y, mask.bits).full(rows, columns)


def _tight(mask: RoiMask) -> RoiMask | None:
    rows, columns = np.flatnonzero(mask.bits.any(axis=1)), np.flatnonzero(mask.bits.any(axis=0))
    if rows.size == 0:
        return None
    bits = mask.bits[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()
    return RoiMask(mask.x + int(columns[0]), mask.y + int(rows[0]), bits)
