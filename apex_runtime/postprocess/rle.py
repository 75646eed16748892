"""COCO run lengths to and from masks that are cut to their box, without ever making the full mask.

The format (https://github.com/cocodataset/cocoapi, ``maskApi.c``): a mask is read column by column; ``counts`` are the lengths of
alternating runs, zeros first. Compressed, every count from the fourth on is stored as the difference to the count two places
before, in groups of five bits, lowest first, bit 5 = "more follows", shifted by 48 into printable characters.

Legend: M masks, r their runs of ones, R their counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from apex_runtime.data.roi_mask import RoiMask

_CHARACTERS_PER_COUNT = 7  # 7 groups of 5 bits hold any difference of two int32 counts
_TOGETHER = 1 << 22  # pixels of the masks that are encoded together


def compress_counts(counts: np.ndarray) -> str:
    """Run lengths, int64 [r], as the compressed COCO string."""
    text, _ends = _compress(counts, np.arange(len(counts)))
    return text


def _compress(counts_R: np.ndarray, place_R: np.ndarray) -> tuple[str, np.ndarray]:
    """The strings of several masks, one after the other, and where each count ends in them. ``place_R``: its place in a mask."""
    deltas = counts_R.astype(np.int64)
    late = np.flatnonzero(place_R >= 3)
    deltas[late] -= counts_R[late - 2]
    size = np.where(deltas < 0, ~deltas, deltas)  # a count ends where the rest is only sign: bit 4 of its last group tells it
    length = np.ones_like(deltas)
    for group in range(1, int(size.max(initial=0)).bit_length() // 5 + 1):
        length += size >= 1 << (5 * group - 1)
    stop = np.cumsum(length)
    place = np.arange(int(length.sum())) - np.repeat(stop - length, length)
    low = (np.repeat(deltas, length) >> (5 * place)) & 0x1F
    low[np.repeat(length, length) - 1 > place] |= 0x20
    return (low + 48).astype(np.uint8).tobytes().decode("ascii"), stop


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
    return next(rois_to_rles([mask], height, width))


def rois_to_rles(masks: Iterable[RoiMask], height: int, width: int) -> Iterator[dict[str, Any]]:
    """``roi_to_rle`` of many masks of one image: together, because for a small one the calls cost more than the work."""
    group: list[RoiMask] = []
    size = 0
    for mask in masks:
        rows, cols = mask.bits.shape
        if mask.x < 0 or mask.y < 0 or mask.x + cols > width or mask.y + rows > height:
            raise ValueError(f"mask window {cols}x{rows} at ({mask.x}, {mask.y}) leaves the {width}x{height} image")
        if group and size + mask.bits.size > _TOGETHER:
            yield from _encode(group, height, width)
            group, size = [], 0
        group.append(mask)
        size += mask.bits.size
    if group:
        yield from _encode(group, height, width)


def _encode(masks: Sequence[RoiMask], height: int, width: int) -> list[dict[str, Any]]:
    mask_r, begin_r, end_r = _runs(masks, height)
    runs_M = np.bincount(mask_r, minlength=len(masks))
    first_M = np.cumsum(runs_M) - runs_M
    before_r = np.concatenate([[0], end_r[:-1]])
    before_r[first_M[runs_M > 0]] = 0
    last_M = np.where(runs_M > 0, np.append(end_r, 0)[first_M + runs_M - 1], 0)
    tail_M = height * width - last_M
    length_M = 2 * runs_M + (tail_M > 0)  # zeros at the end are a count only where there are any
    stop_M = np.cumsum(length_M)
    counts_R = np.empty(stop_M[-1], np.int64)
    counts_R[stop_M - 1] = tail_M  # where there are none, the last run comes here next
    at_r = (stop_M - length_M - 2 * first_M)[mask_r] + 2 * np.arange(len(mask_r))
    counts_R[at_r], counts_R[at_r + 1] = begin_r - before_r, end_r - begin_r
    text, end_R = _compress(counts_R, np.arange(len(counts_R)) - np.repeat(stop_M - length_M, length_M))
    ends = end_R[stop_M - 1].tolist()
    return [{"size": [height, width], "counts": text[start:end]} for start, end in zip([0, *ends], ends, strict=False)]


def _runs(masks: Sequence[RoiMask], height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every run of ones its mask, and where on the image, read column by column, it begins and ends; int64 [r] each."""
    rows_M, cols_M, x_M, y_M = np.array([(*mask.bits.shape, mask.x, mask.y) for mask in masks]).T
    flat = np.concatenate([mask.bits.T.reshape(-1) for mask in masks]) != 0  # column by column
    rows_C = np.repeat(rows_M, cols_M)
    rows_C = rows_C[rows_C > 0]
    starts_C = np.cumsum(rows_C) - rows_C
    begins, ends = flat.copy(), flat.copy()
    begins[1:] &= ~flat[:-1]
    ends[:-1] &= ~flat[1:]
    begins[starts_C] |= flat[starts_C]  # no run crosses from one column to the next here
    ends[starts_C[1:] - 1] |= flat[starts_C[1:] - 1]
    begin, end = np.flatnonzero(begins), np.flatnonzero(ends)
    stop_M = np.cumsum(rows_M * cols_M)
    mask_r = np.searchsorted(stop_M, begin, "right")
    column_r, row_r = np.divmod(begin - (stop_M - rows_M * cols_M)[mask_r], rows_M[mask_r])
    begin_r = (column_r + x_M[mask_r]) * height + row_r + y_M[mask_r]
    end_r = begin_r + end - begin + 1
    # A run that reaches the last row and goes on in the first row of the next column is one run for COCO.
    joined = (begin_r[1:] == end_r[:-1]) & (mask_r[1:] == mask_r[:-1])
    first, last = np.insert(~joined, 0, True)[: len(mask_r)], np.append(~joined, True)[: len(mask_r)]
    return mask_r[first], begin_r[first], end_r[last]


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
