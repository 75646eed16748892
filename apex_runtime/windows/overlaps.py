"""Which detections of different windows may be one object: what both windows saw of them is nearly the same.

Two detections are compared inside the zone that both of their windows show; there, and only there, both could see all of the
object. Legend: D detections, E pairs.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np

from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.data.scenes.windows import Window
from apex_runtime.windows.found import Found, PackedMask

SAME = 0.5  # overlap over union inside the common zone, from which on two detections are one object
_HELD = 4096  # unpacked masks at a time
_SQUARE = 256  # pixels

Zone = tuple[int, int, int, int]


def same_objects(found: Found, window_D: np.ndarray, windows: Sequence[Window]) -> dict[int, list[int]]:
    """For every detection with any: those of other windows that are taken for the same object. ``window_D`` int64 [D], rising."""
    unpacked = lru_cache(_HELD)(lambda index: found.masks[index].unpack())
    starts = np.searchsorted(window_D, np.arange(len(windows) + 1))
    same: dict[int, list[int]] = {}
    for first, second in _neighbours(windows):
        zone = _common(windows[first], windows[second])
        mine, theirs = (_inside(found, np.arange(*starts[number : number + 2]), zone) for number in (first, second))
        for a, b, pixels in _candidates(found, mine, theirs, zone, unpacked):
            if overlap(pixels, shared_pixels(unpacked(a), unpacked(b), zone)) >= SAME:
                same.setdefault(a, []).append(b)
                same.setdefault(b, []).append(a)
    return same


def _neighbours(windows: Sequence[Window]) -> Iterator[tuple[int, int]]:
    """Pairs (i, j), i < j and rising, of windows that share pixels. Where one begins says which others it can reach: a scene has
    thousands of windows."""
    side = max((max(window.width, window.height) for window in windows), default=1)
    cells: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place, window in enumerate(windows):
        cells[window.x // side, window.y // side].append(place)
    for i, a in enumerate(windows):
        columns, rows = (range(start // side - 1, start // side + 2) for start in (a.x, a.y))
        around = itertools.product(columns, rows)
        for j in sorted(j for cell in around for j in cells.get(cell, ()) if j > i):
            b = windows[j]
            if a.x < b.x + b.width and b.x < a.x + a.width and a.y < b.y + b.height and b.y < a.y + a.height:
                yield i, j


def _common(a: Window, b: Window) -> Zone:
    return (
        max(a.x, b.x),
        max(a.y, b.y),
        min(a.x + a.width, b.x + b.width),
        min(a.y + a.height, b.y + b.height),
    )


def _inside(found: Found, index: np.ndarray, zone: Zone) -> np.ndarray:
    """Those of the detections ``index`` whose box reaches into the zone."""
    x1, y1, x2, y2 = found.boxes[index].T
    return index[(x1 < zone[2]) & (x2 > zone[0]) & (y1 < zone[3]) & (y2 > zone[1])]


def _candidates(
    found: Found, mine: np.ndarray, theirs: np.ndarray, zone: Zone, unpacked: Callable[[int], RoiMask]
) -> list[tuple[int, int, int]]:
    """Pairs of one class that may overlap enough, as far as the number of their pixels and the rectangles around them tell; the
    third is the sum of their pixels."""
    a, b = (cut_rectangles([found.masks[place] for place in index.tolist()], zone) for index in (mine, theirs))
    counts = [np.array([_pixels_in(unpacked(place), zone) for place in index.tolist()], np.int64) for index in (mine, theirs)]
    alike = found.labels[mine][:, None] == found.labels[theirs]
    rows, cols = np.nonzero(alike & (best_overlap(a[:, None], b[None], counts[0][:, None], counts[1]) >= SAME))
    pixels = counts[0][rows] + counts[1][cols]
    return list(zip(mine[rows].tolist(), theirs[cols].tolist(), pixels.tolist(), strict=True))


def cut_rectangles(masks: Sequence[PackedMask], zone: Zone) -> np.ndarray:
    """int64 [n,4], xyxy: the rectangles of masks, cut to a zone."""
    sides = np.array([[mask.x, mask.y, mask.x + mask.cols, mask.y + mask.rows] for mask in masks], np.int64).reshape(-1, 4)
    return sides.clip(np.array(zone[:2] * 2), np.array(zone[2:] * 2))


def best_overlap(a: np.ndarray, b: np.ndarray, pixels_a: np.ndarray, pixels_b: np.ndarray) -> np.ndarray:
    """The most that intersection over union can be of masks with so many pixels in rectangles xyxy [...,4]; all broadcast."""
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.minimum(sides.clip(0).prod(-1), np.minimum(pixels_a, pixels_b))
    return np.asarray(shared / np.maximum(pixels_a + pixels_b - shared, 1))


def _pixels_in(mask: RoiMask, zone: Zone) -> int:
    rows = slice(max(0, zone[1] - mask.y), max(0, zone[3] - mask.y))
    return int(np.count_nonzero(mask.bits[rows, max(0, zone[0] - mask.x) : max(0, zone[2] - mask.x)]))


def shared_pixels(a: RoiMask, b: RoiMask, zone: Zone) -> int:
    """How many pixels inside a zone (x1, y1, x2, y2) two masks have in common."""
    x1, y1 = max(zone[0], a.x, b.x), max(zone[1], a.y, b.y)
    x2 = min(zone[2], a.x + a.bits.shape[1], b.x + b.bits.shape[1])
    y2 = min(zone[3], a.y + a.bits.shape[0], b.y + b.bits.shape[0])
    if x2 <= x1 or y2 <= y1:
        return 0
    first, second = (mask.bits[y1 - mask.y : y2 - mask.y, x1 - mask.x : x2 - mask.x] for mask in (a, b))
    return int(np.count_nonzero(first & second))


def overlap(pixels: int, shared: int) -> float:
    """Intersection over union of two masks from the sum of their pixels and those in common; 0 where neither has a pixel."""
    return shared / (pixels - shared) if shared else 0.0


def touching(boxes: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """int64 [E,2], rising: pairs (i, j), i < j, of boxes (float [n,4] xyxy) that overlap, one of them ``chosen`` (bool [n]).

    Boxes are compared within the squares of a coarse grid only, so that a scene with many objects costs little more per object.
    """
    cells: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place, (x1, y1, x2, y2) in enumerate((boxes // _SQUARE).astype(np.int64).tolist()):
        for cell in itertools.product(range(x1, x2 + 1), range(y1, y2 + 1)):
            cells[cell].append(place)
    pairs = [np.zeros(0, np.int64)]
    for members in cells.values():
        index = np.array(members)
        own = boxes[index]
        meet = (own[:, None, :2] < own[None, :, 2:]).all(2)
        meet &= meet.T & (chosen[index][:, None] | chosen[index])
        rows, cols = np.nonzero(np.triu(meet, 1))
        pairs.append(index[rows] * len(boxes) + index[cols])
    return np.stack(np.divmod(np.unique(np.concatenate(pairs)), max(len(boxes), 1)), axis=1)
