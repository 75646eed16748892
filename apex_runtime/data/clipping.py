"""A ring of points cut to a rectangle. A ring is float64 [n,2] of x, y; a repeated first point does no harm."""

from __future__ import annotations

import numpy as np

Ring = np.ndarray


def clip_ring(ring: Ring, left: float, top: float, right: float, bottom: float) -> Ring:
    """The part of a ring in a rectangle, [m,2]; [0,2] where nothing is left (Sutherland and Hodgman, 1974).

    Pieces of a concave ring stay joined along the border: area and pixels are right, the outline runs back and forth there.
    """
    (x1, y1), (x2, y2) = (ring.min(axis=0), ring.max(axis=0)) if len(ring) else ((left, top), (left, top))
    if x1 > right or y1 > bottom or x2 < left or y2 < top:  # of a layer over many scenes, nearly all
        return np.zeros((0, 2))
    for axis, border, sign in ((0, left, 1.0), (0, right, -1.0), (1, top, 1.0), (1, bottom, -1.0)):
        ring = _half_plane(ring, axis, border, sign)
    return ring if len(ring) >= 3 else np.zeros((0, 2))


def _half_plane(ring: Ring, axis: int, border: float, sign: float) -> Ring:
    distance = sign * (ring[:, axis] - border)
    inside = distance >= 0
    if inside.all():
        return ring
    following, beyond = np.roll(ring, -1, axis=0), np.roll(distance, -1)
    crosses = inside != np.roll(inside, -1)
    share = distance / np.where(crosses, distance - beyond, 1.0)
    met = ring + (following - ring) * share[:, None]
    met[:, axis] = border  # exactly: rounding must not leave a point outside
    both = np.stack([ring, met], axis=1).reshape(-1, 2)
    return both[np.stack([inside, crosses], axis=1).reshape(-1)]
