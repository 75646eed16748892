"""Tiles along a Hilbert curve: neighbours in the sequence are neighbours in the image."""

from __future__ import annotations

import numpy as np


def hilbert_rank(rows: int, cols: int) -> np.ndarray:
    """int64 [rows*cols]: the place of tile id = row * cols + col along the curve, dense from 0.

    The curve fills the smallest square of a power of two that covers the grid; what lies outside the grid is left out. Bit-wise
    walk from the coarsest quadrant to the finest (Warren, Hacker's Delight, chapter 16).
    """
    row, col = (axis.reshape(-1) for axis in np.indices((rows, cols), dtype=np.int64))
    side = 1 << max(rows - 1, cols - 1, 0).bit_length()
    distance = np.zeros(rows * cols, np.int64)
    half = side // 2
    while half:
        right, low = (col & half) > 0, (row & half) > 0
        distance += half * half * ((3 * right) ^ low)
        # Turn the quadrant so that the curve inside it starts and ends where its neighbours expect.
        flip = ~low & right
        col, row = np.where(flip, side - 1 - col, col), np.where(flip, side - 1 - row, row)
        col, row = np.where(low, col, row), np.where(low, row, col)
        half //= 2
    rank = np.empty(rows * cols, np.int64)
    rank[np.argsort(distance)] = np.arange(rows * cols)
    return rank
