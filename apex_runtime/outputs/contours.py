"""Masks as polygons, exactly along the edges of their pixels: rasterised again they are the same masks."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from apex_runtime.data.roi_mask import RoiMask

_Point = tuple[int, int]
_Edges = dict[_Point, list[tuple[_Point, int]]]  # from each corner: where to, and of which region


def outlines(mask: RoiMask) -> list[list[np.ndarray]]:
    """The regions of a mask (pixels that share a side), the largest first, each an outer ring and its holes.

    Rings are float64 [n,2] x, y, not closed, in pixels of the image; a single pixel at column 3 reaches from 3 to 4. Outer rings
    run clockwise as seen on the screen, holes the other way.
    """
    outer: dict[int, np.ndarray] = {}
    holes: dict[int, list[np.ndarray]] = defaultdict(list)
    edges = _edges(mask.bits)
    while edges:
        ring, region = _follow(edges)
        if _area(ring) > 0:
            outer[region] = ring
        else:
            holes[region].append(ring)
    place = np.array([mask.x, mask.y], np.float64)
    order = sorted(outer, key=lambda region: -_area(outer[region]))
    return [[ring + place for ring in (outer[region], *holes[region])] for region in order]


def _edges(bits: np.ndarray) -> _Edges:
    """The sides between mask and background, each with the mask on its right hand."""
    import cv2

    _count, regions = cv2.connectedComponents(np.pad(bits, 1), connectivity=4)
    edges: _Edges = defaultdict(list)
    # Per side of a pixel: the neighbour beyond it (rows, columns), and where the side begins and ends (columns, rows).
    for beyond, start, end in (
        ((-1, 0), (0, 0), (1, 0)),
        ((0, 1), (1, 0), (1, 1)),
        ((1, 0), (1, 1), (0, 1)),
        ((0, -1), (0, 1), (0, 0)),
    ):
        outside = np.roll(regions, (-beyond[0], -beyond[1]), (0, 1)) == 0
        rows, cols = np.nonzero((regions > 0) & outside)
        for row, col, region in zip((rows - 1).tolist(), (cols - 1).tolist(), regions[rows, cols].tolist(), strict=True):
            edges[col + start[0], row + start[1]].append(((col + end[0], row + end[1]), region))
    return edges


def _follow(edges: _Edges) -> tuple[np.ndarray, int]:
    """Take one ring out of ``edges``: its corners, and its region."""
    first = next(iter(edges))
    here, region = _take(edges, first, None)
    corners, before = [first], (here[0] - first[0], here[1] - first[1])
    while here != first:
        there, _same = _take(edges, here, before)
        step = there[0] - here[0], there[1] - here[1]
        if step != before:
            corners.append(here)
        here, before = there, step
    if len(corners) > 2 and (corners[1][0] - first[0]) * before[1] == (corners[1][1] - first[1]) * before[0]:
        corners = corners[1:]  # the start lay in the middle of a side
    return np.array(corners, np.float64), region


def _take(edges: _Edges, here: _Point, before: _Point | None) -> tuple[_Point, int]:
    """The side that leaves this corner; where two pixels touch at it, the one of a right turn: it stays with its pixel."""
    leaving = edges[here]
    chosen = leaving[0]
    if before is not None and len(leaving) > 1:
        right = here[0] - before[1], here[1] + before[0]
        chosen = next(edge for edge in leaving if edge[0] == right)
    leaving.remove(chosen)
    if not leaving:
        del edges[here]
    return chosen


def _area(ring: np.ndarray) -> float:
    """Square pixels; positive for a ring that runs clockwise on the screen."""
    x, y = ring.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
