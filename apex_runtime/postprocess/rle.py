"""COCO run lengths to and from masks that are cut to their box, without ever making the full mask.

The format (https://github.com/cocodataset/cocoapi, ``maskApi.c``): a mask is read column by column; ``counts`` are the lengths of
alternating runs, zeros first. Compressed, every count from the fourth on is stored as the difference to the count two places
before, in groups of five bits, lowest first, bit 5 = "more follows", shifted by 48 into printable characters.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from apex_runtime.data.roi_mask import RoiMask

_CHARACTERS_PER_COUNT = 7  # 7 groups of 5 bits hold any difference of two int32 counts


def compress_counts(counts: np.ndarray) -> str:
    """Run lengths, int64 [r], as the compressed COCO string."""
    deltas = counts.astype(np.int64)
    deltas[3:] -= counts[1:-2]
    groups = deltas[:, None] >> (5 * np.arange(_CHARACTERS_PER_COUNT))
    low = groups & 0x1F
    rest = groups >> 5
    # A count ends where the rest is only sign: -1 after a set sign bit, 0 after a clear one.
    more = np.where(low & 0x10, rest != -1, rest != 0)
    used = np.concatenate([np.ones_like(more[:, :1]), np.logical_and.accumulate(more, axis=1)[:, :-1]], axis=1)
    characters = (low | np.where(more, 0x20, 0)) + 48
    return characters[used].astype(np.uint8).tobytes().decode("ascii")


def decompress_counts(text: str | bytes) -> np.ndarray:
    """The inverse of ``compress_counts``: int64 [r]. Raises ValueError when the text is not a COCO string."""
    raw = np.frombuffer(text.encode("ascii") if isinstance(text, str) else text, np.uint8).astype(np.int64) - 48
    if raw.size == 0:
        return np.zeros(0, np.int64)
    if raw.min() < 0 or raw.max() > 63 or raw[-1] & 0x20:
        raise ValueError("not a compressed COCO run length string")
    ends = np.flatnonzero((raw & 0x20) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(raw.size) - np.repeat(starts, ends - starts + 1)
    if place.max() >= _CHARACTERS_PER_COUNT:
        raise ValueError("not a compressed COCO run length string")
    values = np.add.reduceat((raw & 0x1F) << (5 * place), starts)
    values -= np.where(raw[ends] & 0x10, np.int64(1) << (5 * (place[ends] + 1)), 0)
    # counts[i] = delta[i] + counts[i-2] for i >= 3: two interleaved running sums, that of the even places begins at 2.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def roi_to_rle(mask: RoiMask, height: int, width: int) -> dict[str, Any]:
    """COCO compressed RLE of a mask on its image, ``{"size": [height, width], "counts": str}``.

    Equal to ``pycocotools.mask.encode`` of the full mask. Raises ValueError when the window leaves the image.
    """
    rows, cols = mask.bits.shape
    if mask.x < 0 or mask.y < 0 or mask.x + cols > width or mask.y + rows > height:
        raise ValueError(f"mask window {cols}x{rows} at ({mask.x}, {mask.y}) leaves the {width}x{height} image")
    # Within the window, column by column, with a zero before each column: runs never cross from one column to the next here.
    columns = np.zeros((cols, rows + 2), np.int8)
    columns[:, 1:-1] = mask.bits.T != 0
    column, edge = np.nonzero(np.diff(columns, axis=1))
    positions = (column + mask.x) * height + edge + mask.y
    # A run that reaches the last row and goes on in the first row of the next column is one run for COCO: drop both edges.
    joined = np.flatnonzero(positions[1:-1:2] == positions[2::2]) * 2 + 1
    positions = np.delete(positions, np.concatenate([joined, joined + 1]))
    bounds = np.concatenate([[0], positions, [height * width]])
    counts = np.diff(bounds)
    if counts.size > 1 and counts[-1] == 0:
        counts = counts[:-1]
    return {"size": [height, width], "counts": compress_counts(counts)}


def counts_to_roi(counts: np.ndarray, height: int, width: int) -> RoiMask | None:
    """The mask of uncompressed run lengths, int64 [r], cut to its box; None when it has no pixel.

    Raises ValueError when a run is negative or the runs do not cover height * width pixels.
    """
    if counts.size and counts.min() < 0:
        raise ValueError("negative run length")
    ends = np.cumsum(counts)
    total = int(ends[-1]) if ends.size else 0
    if total != height * width:
        raise ValueError(f"run lengths cover {total} pixels, the image has {height * width}")
    inked = np.flatnonzero(counts[1::2]) * 2 + 1
    if inked.size == 0:
        return None
    left, right = int((ends[inked[0]] - counts[inked[0]]) // height), int((ends[inked[-1]] - 1) // height)
    window = np.clip(ends, left * height, (right + 1) * height)
    runs = np.diff(window, prepend=left * height)
    columns = np.repeat(np.arange(counts.size, dtype=np.int64) & 1, runs).astype(np.uint8).reshape(right - left + 1, height)
    rows = np.flatnonzero(columns.any(axis=0))
    top, bottom = int(rows[0]), int(rows[-1])
    return RoiMask(left, top, np.ascontiguousarray(columns[:, top : bottom + 1].T))


def rle_to_roi(segmentation: dict[str, Any]) -> RoiMask | None:
    """A COCO RLE (compressed text or bytes, or a list of run lengths) as a mask cut to its box; None when it has no pixel.

    Raises ValueError when it is not a valid RLE.
    """
    height, width = (int(side) for side in segmentation["size"])
    counts = segmentation["counts"]
    lengths = np.asarray(counts, np.int64) if isinstance(counts, list) else decompress_counts(counts)
    return counts_to_roi(lengths, height, width)
