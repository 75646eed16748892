"""Objects of a scene: made from masks or boxes, and cut to a window of the scene."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apex_runtime.data.dataset import Instances
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.data.scenes.windows import Window


def from_masks(masks: Sequence[RoiMask], labels: Sequence[int], crowd: Sequence[bool]) -> Instances:
    """Instances whose boxes and areas are those of their masks."""
    boxes = [(mask.x, mask.y, mask.x + mask.bits.shape[1], mask.y + mask.bits.shape[0]) for mask in masks]
    return Instances(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        masks=list(masks),
        crowd=np.array(crowd, bool),
        areas=np.array([mask.area for mask in masks], np.float32),
    )


def cut(found: Instances, window: Window, min_piece: float) -> tuple[Instances, int]:
    """The objects of a scene that lie in a window, in its coordinates, and how many pieces were left out as too small.

    A piece is what remains of an object that the window's border cuts; it stays one object where it falls apart. Pieces under
    ``min_piece`` square pixels are left out; ignore regions of any size stay.
    """
    low = np.array([window.x, window.y], np.float32)
    high = low + np.array([window.width, window.height], np.float32)
    extents = _extents(found)
    near = np.flatnonzero(np.all((extents[:, :2] < high) & (extents[:, 2:] > low), axis=1)).tolist()
    inside = _within(extents, low, high)
    kept_box = _within(found.boxes, low, high)
    pieces = [_whole(found, n, window) if inside[n] and kept_box[n] else _piece(found, n, window) for n in near]
    kept = [
        (n, piece)
        for n, piece in zip(near, pieces, strict=True)
        if piece is not None and (inside[n] or found.crowd[n] or piece[2] >= min_piece)
    ]
    dropped = sum(piece is not None for piece in pieces) - len(kept)
    order = [n for n, _ in kept]
    cut_out = Instances(
        boxes=np.array([piece[0] for _, piece in kept], np.float32).reshape(-1, 4),
        labels=found.labels[order],
        masks=[piece[1] for _, piece in kept],
        crowd=found.crowd[order],
        areas=np.array([piece[2] for _, piece in kept], np.float32),
    )
    return cut_out, dropped


def _extents(found: Instances) -> np.ndarray:
    """Where the objects are, float32 [n,4] xyxy: that of the mask where there is one, for the box of a file may be another."""
    extents = found.boxes.copy()
    for n, mask in enumerate(found.masks):
        if mask is not None:
            extents[n] = mask.x, mask.y, mask.x + mask.bits.shape[1], mask.y + mask.bits.shape[0]
    return extents


def _within(boxes: np.ndarray, low: np.ndarray, high: np.ndarray) -> list[bool]:
    return list(np.all((boxes[:, :2] >= low) & (boxes[:, 2:] <= high), axis=1).tolist())


_Piece = tuple[tuple[float, float, float, float], RoiMask | None, float]  # box, mask, area


def _whole(found: Instances, n: int, window: Window) -> _Piece:
    x1, y1, x2, y2 = found.boxes[n].tolist()
    mask = found.masks[n]
    moved = None if mask is None else RoiMask(mask.x - window.x, mask.y - window.y, mask.bits)
    return (x1 - window.x, y1 - window.y, x2 - window.x, y2 - window.y), moved, float(found.areas[n])


def _piece(found: Instances, n: int, window: Window) -> _Piece | None:
    mask = found.masks[n]
    if mask is None:
        x1, y1, x2, y2 = _whole(found, n, window)[0]
        x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, window.width), min(y2, window.height)
        return (x1, y1, x2, y2), None, (x2 - x1) * (y2 - y1)
    part = crop(mask, window)
    if part is None:
        return None
    rows, columns = part.bits.shape
    return (part.x, part.y, part.x + columns, part.y + rows), part, float(part.area)


def crop(mask: RoiMask, window: Window) -> RoiMask | None:
    """The part of a mask in a window, in its coordinates, cut to its own box; None when no pixel is there."""
    left, top = max(mask.x, window.x), max(mask.y, window.y)
    right = min(mask.x + mask.bits.shape[1], window.x + window.width)
    bottom = min(mask.y + mask.bits.shape[0], window.y + window.height)
    if right <= left or bottom <= top:
        return None
    bits = mask.bits[top - mask.y : bottom - mask.y, left - mask.x : right - mask.x]
    rows, columns = np.flatnonzero(bits.any(axis=1)), np.flatnonzero(bits.any(axis=0))
    if rows.size == 0:
        return None
    # A copy: a view would keep the whole mask of a large region alive.
    tight = bits[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()
    return RoiMask(left - window.x + int(columns[0]), top - window.y + int(rows[0]), tight)
