"""The detections of all windows as those of the scene: what several windows saw is one object, what borders cut is joined.

Whole objects come first, then pieces, each from the best score down. One that another window has shown already (``overlaps``) is
left out; a piece that continues pieces of other windows is joined with them. The score of an object is the best that any window
gave it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.data.scenes.windows import Window
from apex_runtime.windows.found import Found, PackedMask, together
from apex_runtime.windows.overlaps import Zone, best_overlap, cut_rectangles, overlap, same_objects, shared_pixels, touching

_Shape = tuple[np.ndarray, PackedMask]  # box xyxy and mask

DUPLICATE = 0.6  # overlap over union of whole masks, more than which no two outputs across a seam have
_EVERYWHERE: Zone = (-(1 << 30), -(1 << 30), 1 << 30, 1 << 30)
_HELD = 4096  # unpacked masks at a time
_PAIRS = 1 << 16  # compared at a time


@dataclass
class _Object:
    """``first`` is the detection that gives its place, ``pieces`` are joined with it; ``windows`` have shown it."""

    first: int
    score: float
    whole: bool
    pieces: list[int] = field(default_factory=list)
    windows: set[int] = field(default_factory=set)

    def joined_with(self, other: _Object) -> _Object:
        """Both as one object at the place of the better one."""
        best, rest = (self, other) if self.score >= other.score else (other, self)
        return _Object(best.first, best.score, False, [*best.pieces, rest.first, *rest.pieces], best.windows | rest.windows)


def join(parts: Sequence[Found], windows: Sequence[Window]) -> Found:
    """The objects of a scene, best first; ``parts`` are what each of the ``windows``, a grid, found. None of them is ``cut``."""
    found = together(parts)
    window_D = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    same = same_objects(found, window_D, windows)
    objects = _objects(found, window_D, same)
    kept = sorted(objects, key=lambda item: -item.score)
    joined = [_joined(found, item) for item in kept]
    return _collect(found, kept, joined, _distinct(kept, joined, found, windows))


def _objects(found: Found, window_D: np.ndarray, same: dict[int, list[int]]) -> list[_Object]:
    """Only what gives an object its place or is joined with it speaks for the object: were what is left out to do so too, a blob
    that one window made of two objects would take the second with it."""
    owner: dict[int, _Object] = {}
    for index in np.lexsort((-found.scores, found.cut)).tolist():
        near = [owner[other] for other in same.get(index, ()) if other in owner]
        mine = _Object(index, float(found.scores[index]), not found.cut[index], windows={int(window_D[index])})
        whole = next((item for item in near if item.whole), None)
        if whole is not None:
            whole.score = max(whole.score, mine.score)
            whole.windows |= mine.windows
            continue
        for item in near:
            if not item.windows & mine.windows:
                mine = item.joined_with(mine)
        for part in (mine.first, *mine.pieces):
            owner[part] = mine
    return list({id(item): item for item in owner.values()}.values())


def _joined(found: Found, item: _Object) -> _Shape:
    """Box and mask of an object."""
    parts = [item.first, *item.pieces]
    if len(parts) == 1:
        return found.boxes[item.first], found.masks[item.first]
    boxes = found.boxes[parts]
    return np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)]), _union([found.masks[part].unpack() for part in parts])


def _union(masks: list[RoiMask]) -> PackedMask:
    x, y = min(mask.x for mask in masks), min(mask.y for mask in masks)
    right, bottom = max(mask.x + mask.bits.shape[1] for mask in masks), max(mask.y + mask.bits.shape[0] for mask in masks)
    bits = np.maximum.reduce([RoiMask(mask.x - x, mask.y - y, mask.bits).full(bottom - y, right - x) for mask in masks])
    return PackedMask.of(RoiMask(x, y, bits))


def _distinct(kept: list[_Object], joined: list[_Shape], found: Found, windows: Sequence[Window]) -> list[int]:
    """Positions of the objects without those that a better one of their class covers, where several windows had a say: where they
    overlap, and where pieces were joined. Elsewhere a window's own answer stands."""
    boxes = np.array([box for box, _mask in joined]).reshape(-1, 4)
    contested = _seen_twice(boxes, windows) | np.array([len(item.pieces) > 0 for item in kept], bool)
    labels = found.labels[[item.first for item in kept]]
    unpacked = lru_cache(_HELD)(lambda place: joined[place][1].unpack())
    masks = [mask for _box, mask in joined]
    sides, pixels = cut_rectangles(masks, _EVERYWHERE), np.array([mask.area for mask in masks], np.int64)
    lost: set[int] = set()
    for better, worse in _alike(touching(boxes, contested), labels, sides, pixels):
        if better in lost or worse in lost:
            continue
        shared = shared_pixels(unpacked(better), unpacked(worse), _EVERYWHERE)
        if overlap(int(pixels[better] + pixels[worse]), shared) > DUPLICATE:
            lost.add(worse)
    return [place for place in range(len(kept)) if place not in lost]


def _alike(pairs_E2: np.ndarray, labels: np.ndarray, sides: np.ndarray, pixels: np.ndarray) -> Iterator[tuple[int, int]]:
    """Those of the pairs that have one class and may overlap enough."""
    for start in range(0, len(pairs_E2), _PAIRS):
        a, b = pairs_E2[start : start + _PAIRS].T
        close = (labels[a] == labels[b]) & (best_overlap(sides[a], sides[b], pixels[a], pixels[b]) > DUPLICATE)
        yield from zip(a[close].tolist(), b[close].tolist(), strict=True)


def _seen_twice(boxes: np.ndarray, windows: Sequence[Window]) -> np.ndarray:
    """bool [n]: which boxes reach into what two windows of the grid show."""
    columns = np.array(sorted({(w.x, w.x + w.width) for w in windows}))
    rows = np.array(sorted({(w.y, w.y + w.height) for w in windows}))
    return _reached(boxes[:, 0], boxes[:, 2], columns) * _reached(boxes[:, 1], boxes[:, 3], rows) > 1


def _reached(low: np.ndarray, high: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """int64 [n]: into how many spans (rising starts and ends, [m,2]) each interval reaches."""
    return np.searchsorted(spans[:, 0], high, "left") - np.searchsorted(spans[:, 1], low, "right")


def _collect(found: Found, kept: list[_Object], joined: list[_Shape], places: list[int]) -> Found:
    firsts = np.array([kept[place].first for place in places], np.int64)
    return Found(
        np.array([joined[place][0] for place in places]).reshape(-1, 4),
        np.array([kept[place].score for place in places], np.float32),
        found.labels[firsts],
        [joined[place][1] for place in places],
        np.zeros(len(places), bool),
    )
