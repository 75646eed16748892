"""The windows in which a large scene is read: as few as cover it, spread evenly."""

from __future__ import annotations

from dataclasses import dataclass

from apex_runtime.errors import UsageError


@dataclass(frozen=True)
class Window:
    """A rectangle of a scene in pixels: its left upper corner at column ``x``, row ``y``, and its size."""

    x: int
    y: int
    width: int
    height: int


def windows(height: int, width: int, size: int | tuple[int, int], overlap: int) -> list[Window]:
    """The fewest windows of ``size`` pixels (one side, or height and width; less where the scene is smaller) that cover the
    scene, row by row.

    Neighbours share at least ``overlap`` pixels. What they share beyond that is spread evenly: were the last window alone moved
    inwards, it could repeat its neighbour almost wholly, and what lies there would count twice in training.
    Raises UsageError for sides below 1 or an overlap that is not from 0 to the smaller side - 1.
    """
    high, wide = (size, size) if isinstance(size, int) else size
    if min(height, width, high, wide) < 1:
        raise UsageError(f"windows of {size} px in a scene of {width}x{height} px: sides start at 1.", "Correct the size.")
    if not 0 <= overlap < min(high, wide):
        raise UsageError(f"overlap {overlap} does not fit windows of {size} px.", f"Choose 0 to {min(high, wide) - 1}.")
    rows, columns = _starts(height, high, overlap), _starts(width, wide, overlap)
    return [Window(x, y, min(wide, width), min(high, height)) for y in rows for x in columns]


def _starts(side: int, size: int, overlap: int) -> list[int]:
    if side <= size:
        return [0]
    steps = -(-(side - size) // (size - overlap))
    return [step * (side - size) // steps for step in range(steps + 1)]
