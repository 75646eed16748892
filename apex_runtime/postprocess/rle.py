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
    most = int(np.abs(deltas).max(initial=0)).bit_length() // 5 + 1  # groups, with a bit for the sign
    groups = deltas[:, None] >> (5 * np.arange(most))
    low = groups & 0x1F
    rest = groups >> 5
    # A count ends where the rest is only sign: -1 after a set sign bit, 0 after a clear one.
    more = np.where(low & 0x10, rest != -1, rest != 0)
    used = np.concatenate([np.ones_like(more[:, :1]), np.logical_and.accumulate(more, axis=1)[:, :-1]], axis=1)
    characters = (low | np.where(more, 0x20, 0)) + 48
    return characters[used].astype(np.uint8).tobytes().decode("ascii"), np.cumsum(used.sum(1))


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
    # Column by column, with a zero before and after each: runs never cross from one column to the next here.
    columns = [np.zeros((mask.bits.shape[1], mask.bits.shape[0] + 2), np.int8) for mask in masks]
    for column, mask in zip(columns, masks, strict=True):
        np.not_equal(mask.bits.T, 0, out=column[:, 1:-1], casting="unsafe")
    flat = np.concatenate([column.reshape(-1) for column in columns])
    x_M, y_M, stride_M, size_M = np.array(
        [(m.x, m.y, m.bits.shape[0] + 2, c.size) for m, c in zip(masks, columns, strict=True)]
    ).T
    edge = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    stop_M = np.cumsum(size_M)
    mask_e = np.searchsorted(stop_M, edge, "right")
    column_e, row_e = np.divmod(edge - (stop_M - size_M)[mask_e], stride_M[mask_e])
    position_e = (column_e + x_M[mask_e]) * height + row_e - 1 + y_M[mask_e]
    mask_r, begin_r, end_r = mask_e[::2], position_e[::2], position_e[1::2]
    # A run that reaches the last row and goes on in the first row of the next column is one run for COCO.
    joined = (begin_r[1:] == end_r[:-1]) & (mask_r[1:] == mask_r[:-1])
    begins, ends = np.insert(~joined, 0, True)[: len(mask_r)], np.append(~joined, True)[: len(mask_r)]
    return mask_r[begins], begin_r[begins], end_r[ends]


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
