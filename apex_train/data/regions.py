"""Small operations on masks that are cut to their bounds: cutting, turning, shrinking, boxes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from apex_runtime.data.roi_mask import RoiMask


class Rect(NamedTuple):
    """Pixels [top:bottom, left:right]."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of these pixels in an array [h,w,...]."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def bounds(mask: RoiMask) -> Rect:
    """The pixels that the mask's bits describe."""
    return Rect(mask.x, mask.y, mask.x + mask.bits.shape[1], mask.y + mask.bits.shape[0])


def cut(mask: RoiMask, window: Rect) -> RoiMask | None:
    """The part of the mask's bits that lies in the window, in the same coordinates; None when there is none."""
    left, top = max(mask.x, window.left), max(mask.y, window.top)
    right = min(mask.x + mask.bits.shape[1], window.right)
    bottom = min(mask.y + mask.bits.shape[0], window.bottom)
    if right <= left or bottom <= top:
        return None
    return RoiMask(left, top, mask.bits[top - mask.y : bottom - mask.y, left - mask.x : right - mask.x])


def tight(mask: RoiMask) -> RoiMask | None:
    """The mask without empty rows and columns around it; None when it is empty."""
    rows, columns = np.flatnonzero(mask.bits.any(1)), np.flatnonzero(mask.bits.any(0))
    if not len(rows):
        return None
    top, left = int(rows[0]), int(columns[0])
    return RoiMask(mask.x + left, mask.y + top, mask.bits[top : rows[-1] + 1, left : columns[-1] + 1])


def oriented(array: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """``array`` [h,w,...] flipped and turned as ``matrix`` [3,3] says, whose linear part has a single 1 or -1 per row; a view."""
    if round(matrix[0, 0]) == 0:
        array = array.swapaxes(0, 1)
    across, down = (round(row[0] + row[1]) for row in matrix[:2])
    return array[::down, ::across]


def shrink_rows(values: np.ndarray, start: int, factor: float) -> tuple[int, np.ndarray]:
    """``values`` [n,m], rows ``start`` and on of something that is 0 elsewhere, averaged over cells of 1 / ``factor`` rows.

    Returns the first cell that they reach and the cells [k,m]: what INTER_AREA makes of the whole, computed on the part. A factor
    of 1 changes nothing.
    """
    if factor == 1:
        return start, values
    first, last = int(np.floor(start * factor + 1e-9)), int(np.ceil((start + len(values)) * factor - 1e-9))
    edges = np.clip(np.arange(first, last + 1) / factor - start, 0, len(values))
    total = np.zeros((len(values) + 2, values.shape[1]), np.float32)
    np.cumsum(values, axis=0, dtype=np.float32, out=total[1:-1])
    total[-1] = total[-2]
    below = edges.astype(np.int64)
    share = (edges - below).astype(np.float32)[:, None]
    at_edges = total[below] + share * (total[below + 1] - total[below])
    return first, np.diff(at_edges, axis=0) * np.float32(factor)
