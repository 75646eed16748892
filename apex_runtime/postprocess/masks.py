"""Instance masks from coefficients and prototypes (YOLACT, https://arxiv.org/abs/1904.02689), each inside its box only.

Legend: n detections, P prototypes, h and w their grid. Prototype cell j has its centre at input coordinate (j + 0.5) * stride.
The logit of a source pixel is bilinear between the cells around its centre, the border cells continue outwards; the pixel belongs
to the mask where the logit is above 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.postprocess.letterbox import Letterbox

STRIDE = 4  # input pixels per prototype cell


class _Axis(NamedTuple):
    """Per source pixel along one axis: the two cells it lies between, and the weight of the second."""

    first: np.ndarray
    second: np.ndarray
    weight: np.ndarray


def assemble_masks(
    coefficients_nP: np.ndarray, prototypes_Phw: np.ndarray, boxes_input_n4: np.ndarray, letterbox: Letterbox
) -> list[RoiMask]:
    """n masks in source pixels, each a window of the pixels whose centre lies in its box (xyxy, input pixels).

    Every window has at least one pixel, the one nearest to the centre of a box too thin to hold any; ``bits`` may be all zero.
    """
    if len(coefficients_nP) == 0:
        return []
    cells_h, cells_w = prototypes_Phw.shape[1:]
    vertical, horizontal = letterbox.scales
    rows = _axis(letterbox.source_height, vertical, cells_h)
    cols = _axis(letterbox.source_width, horizontal, cells_w)
    boxes = np.asarray(boxes_input_n4, np.float64)
    tops, bottoms = _pixels(boxes[:, 1], boxes[:, 3], vertical, letterbox.source_height)
    lefts, rights = _pixels(boxes[:, 0], boxes[:, 2], horizontal, letterbox.source_width)
    prototypes_hwP = np.ascontiguousarray(prototypes_Phw.transpose(1, 2, 0), dtype=np.float32)
    coefficients_nP = np.asarray(coefficients_nP, np.float32)
    masks = []
    for coefficients, top, bottom, left, right in zip(
        coefficients_nP, tops.tolist(), bottoms.tolist(), lefts.tolist(), rights.tolist(), strict=True
    ):
        bits = _window(coefficients, prototypes_hwP, _slice(rows, top, bottom), _slice(cols, left, right))
        masks.append(RoiMask(left, top, bits))
    return masks


def _axis(length: int, scale: float, cells: int) -> _Axis:
    """Where ``length`` source pixels fall between ``cells`` prototype cells."""
    position = np.clip((np.arange(length) + 0.5) * (scale / STRIDE) - 0.5, 0, cells - 1)
    first = np.minimum(position.astype(np.int64), max(cells - 2, 0))
    return _Axis(first, np.minimum(first + 1, cells - 1), (position - first).astype(np.float32))


def _slice(axis: _Axis, start: int, stop: int) -> _Axis:
    return _Axis(axis.first[start:stop], axis.second[start:stop], axis.weight[start:stop])


def _pixels(low: np.ndarray, high: np.ndarray, scale: float, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Half-open ranges, int64 [n] each, of the source pixels with their centre in [low, high) input pixels; never empty."""
    start = np.clip(np.ceil(low / scale - 0.5), 0, length).astype(np.int64)
    stop = np.clip(np.ceil(high / scale - 0.5), 0, length).astype(np.int64)
    middle = np.clip(np.floor((low + high) / (2 * scale)), 0, length - 1).astype(np.int64)
    empty = stop <= start
    return np.where(empty, middle, start), np.where(empty, middle + 1, stop)


def _window(coefficients_P: np.ndarray, prototypes_hwP: np.ndarray, rows: _Axis, cols: _Axis) -> np.ndarray:
    """The bits, uint8 [rows,cols], of one window: first the logits of the cells under it, then rows, then columns."""
    top, left = rows.first[0], cols.first[0]
    logits = prototypes_hwP[top : rows.second[-1] + 1, left : cols.second[-1] + 1] @ coefficients_P
    upper, lower = logits[rows.first - top], logits[rows.second - top]
    by_row = upper + (lower - upper) * rows.weight[:, None]
    before, after = by_row[:, cols.first - left], by_row[:, cols.second - left]
    return (before + (after - before) * cols.weight > 0).astype(np.uint8)
