"""Instance masks from coefficients and prototypes (YOLACT, https://arxiv.org/abs/1904.02689), each inside its box only.

Legend: n detections, P prototypes, h and w their grid, which covers the input. Cell j has its centre at input coordinate
(j + 0.5) * stride; the stride is the side of the input over the cells along it, 4 for our engines.
The logit of a source pixel is bilinear between the cells around its centre, the border cells continue outwards; the pixel belongs
to the mask where the logit is above 0.

What is done when. At once: the product of coefficients and prototypes, for the cells under each box. When a mask is asked for:
its pixels. In between a result holds a few logits per box and not the prototypes, of which 32 at 1024 pixels are 8 MB
(bench/evidence/masks.json). The pixels come from the same two matrix products whenever that is, so waiting changes no bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, overload

import numpy as np

from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.postprocess.letterbox import Letterbox

# A mask is made in squares of so many source pixels: the weights of a pixel are almost all 0, and the cells under a square few.
_SQUARE = 256


class _Axis(NamedTuple):
    """One direction: source pixels, input pixels per source pixel, those before the first, cells, input pixels per cell."""

    pixels: int
    scale: float
    offset: int
    cells: int
    stride: float


class _Span(NamedTuple):
    """The source pixels from ``start`` up to ``stop`` along an axis, and the cells from ``first`` up to ``last`` they need."""

    axis: _Axis
    start: int
    stop: int
    first: int
    last: int


class _Waiting(NamedTuple):
    """A mask that nobody asked for yet: the logits, float32, of the cells under its window, and where the window lies."""

    logits: np.ndarray
    rows: _Span
    cols: _Span


class LazyMasks(Sequence[RoiMask]):
    """The masks of one image, in source pixels; each is assembled when it is first asked for and kept from then on.

    A slice is another such sequence. May be read from several threads: two that ask for one mask get equal ones.
    """

    def __init__(self, masks: Iterable[RoiMask | _Waiting]) -> None:
        self._masks = list(masks)

    def __len__(self) -> int:
        return len(self._masks)

    @overload
    def __getitem__(self, index: int) -> RoiMask: ...
    @overload
    def __getitem__(self, index: slice) -> LazyMasks: ...
    def __getitem__(self, index: int | slice) -> RoiMask | LazyMasks:
        if isinstance(index, slice):
            return LazyMasks(self._masks[index])
        mask = self._masks[index]
        if isinstance(mask, _Waiting):
            mask = self._masks[index] = _assemble(mask)
        return mask


def assemble_masks(
    coefficients_nP: np.ndarray, prototypes_Phw: np.ndarray, boxes_input_n4: np.ndarray, letterbox: Letterbox
) -> LazyMasks:
    """n masks in source pixels, each a window of the pixels whose centre lies in its box (xyxy, input pixels).

    Every window has at least one pixel, the one nearest to the centre of a box too thin to hold any; ``bits`` may be all zero.
    Nothing of the prototypes is held afterwards.
    """
    rows, cols = _windows(boxes_input_n4, prototypes_Phw.shape[1], prototypes_Phw.shape[2], letterbox)
    prototypes_hPw = np.asarray(prototypes_Phw, np.float32).transpose(1, 0, 2)  # a view: one product per row of cells, no copy
    coefficients_nP = np.asarray(coefficients_nP, np.float32)
    return LazyMasks(
        _Waiting(coefficients_P @ prototypes_hPw[row.first : row.last, :, col.first : col.last], row, col)
        for coefficients_P, row, col in zip(coefficients_nP, rows, cols, strict=True)
    )


def masks_of_logits(logits_nhw: np.ndarray, boxes_input_n4: np.ndarray, letterbox: Letterbox) -> LazyMasks:
    """As ``assemble_masks``, for a network that gives every detection logits of its own over the whole input."""
    rows, cols = _windows(boxes_input_n4, logits_nhw.shape[1], logits_nhw.shape[2], letterbox)
    return LazyMasks(
        _Waiting(logits_hw[row.first : row.last, col.first : col.last].astype(np.float32), row, col)
        for logits_hw, row, col in zip(logits_nhw, rows, cols, strict=True)
    )


def _windows(boxes_input_n4: np.ndarray, cells_h: int, cells_w: int, letterbox: Letterbox) -> tuple[list[_Span], list[_Span]]:
    """The rows and the columns of every mask."""
    (vertical, horizontal), (top, left) = letterbox.scales, letterbox.offset
    boxes = np.asarray(boxes_input_n4, np.float64)
    rows = _Axis(letterbox.source_height, vertical, top, cells_h, letterbox.height / cells_h)
    cols = _Axis(letterbox.source_width, horizontal, left, cells_w, letterbox.width / cells_w)
    return _spans(boxes[:, 1], boxes[:, 3], rows), _spans(boxes[:, 0], boxes[:, 2], cols)


def _spans(low_n: np.ndarray, high_n: np.ndarray, axis: _Axis) -> list[_Span]:
    """For each [low, high) in input pixels the source pixels with their centre in it, never none, and the cells they need."""
    low_n, high_n = low_n - axis.offset, high_n - axis.offset
    start = np.clip(np.ceil(low_n / axis.scale - 0.5), 0, axis.pixels).astype(np.int64)
    stop = np.clip(np.ceil(high_n / axis.scale - 0.5), 0, axis.pixels).astype(np.int64)
    middle = np.clip(np.floor((low_n + high_n) / (2 * axis.scale)), 0, axis.pixels - 1).astype(np.int64)
    empty = stop <= start
    start, stop = np.where(empty, middle, start), np.where(empty, middle + 1, stop)
    columns = (start, stop, _cell_before(start, axis), _cells_end(stop, axis))
    return [_Span(axis, *numbers) for numbers in zip(*(column.tolist() for column in columns), strict=True)]


def _position(pixels: np.ndarray, axis: _Axis) -> np.ndarray:
    """Where the centres of source pixels fall between the centres of cells, which have whole numbers; clamped to them."""
    return np.clip((pixels + 0.5) * (axis.scale / axis.stride) + (axis.offset / axis.stride - 0.5), 0, axis.cells - 1)


def _cell_before(pixels: np.ndarray, axis: _Axis) -> np.ndarray:
    """The lower of the two cells, int64, that source pixels lie between; there is an upper one unless the axis has one cell."""
    return np.minimum(_position(pixels, axis).astype(np.int64), max(axis.cells - 2, 0))


def _cells_end(stop: np.ndarray, axis: _Axis) -> np.ndarray:
    """The number behind the last cell, int64, that source pixels up to ``stop`` need."""
    return np.minimum(_cell_before(stop - 1, axis) + 2, axis.cells)


@lru_cache(maxsize=4)
def _weights(axis: _Axis) -> np.ndarray:
    """What each cell contributes to each source pixel, float32 [pixels,cells], not to be written to; kept for the next image.

    At 1024 pixels it is 1 MB; at 12000, the side of a scene, 12 MB.
    """
    pixels = np.arange(axis.pixels)
    first = _cell_before(pixels, axis)
    share = _position(pixels, axis) - first
    weights = np.zeros((axis.pixels, axis.cells), np.float32)
    weights[pixels, first] = 1 - share
    weights[pixels, np.minimum(first + 1, axis.cells - 1)] += share
    return weights


def _assemble(waiting: _Waiting) -> RoiMask:
    """Interpolation along columns, then along rows, each a matrix product."""
    rows, cols = waiting.rows, waiting.cols
    height, width = rows.stop - rows.start, cols.stop - cols.start
    if height <= _SQUARE and width <= _SQUARE:  # nearly always, and an image has hundreds
        weights_y = _weights(rows.axis)[rows.start : rows.stop, rows.first : rows.last]
        weights_x = _weights(cols.axis)[cols.start : cols.stop, cols.first : cols.last]
        return RoiMask(cols.start, rows.start, ((weights_y @ waiting.logits @ weights_x.T) > 0).view(np.uint8))
    bits = np.empty((height, width), bool)
    across = list(_strips(cols))
    for place_y, cells_y, weights_y in _strips(rows):
        for place_x, cells_x, weights_x in across:
            logits = weights_y @ waiting.logits[cells_y, cells_x] @ weights_x.T
            np.greater(logits, 0, out=bits[place_y, place_x])
    return RoiMask(cols.start, rows.start, bits.view(np.uint8))


def _strips(span: _Span) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Piece by piece of a span: which of its pixels, which of its cells they need, and the weights of those, [pixels,cells]."""
    axis, weights = span.axis, _weights(span.axis)
    for start in range(span.start, span.stop, _SQUARE):
        stop = min(start + _SQUARE, span.stop)
        first, last = int(_cell_before(np.array(start), axis)), int(_cells_end(np.array(stop), axis))
        pixels, cells = slice(start - span.start, stop - span.start), slice(first - span.first, last - span.first)
        yield pixels, cells, weights[start:stop, first:last]
