"""Connected regions of a mask, each as one mask cut to its box."""

from __future__ import annotations

import numpy as np

from apex_runtime.data.roi_mask import RoiMask


def components(binary: np.ndarray, min_area: int, connectivity: int = 8) -> tuple[list[RoiMask], int]:
    """The connected regions of ``binary`` (uint8 [h,w], anything but 0 belongs), and how many were left out as too small.

    A region has at least ``min_area`` pixels; ``connectivity`` is 4 (edges touch) or 8 (corners do, too). The order is that of
    the first pixel, row by row.
    """
    import cv2

    # Only the box around everything is labelled: int32 labels cost four times the mask.
    left, top, width, height = cv2.boundingRect(binary)
    if width == 0 or height == 0:
        return [], 0
    window = np.ascontiguousarray(binary[top : top + height, left : left + width])
    count, regions, stats, _ = cv2.connectedComponentsWithStats(window, connectivity=connectivity, ltype=cv2.CV_32S)
    areas = stats[1:count, cv2.CC_STAT_AREA]
    kept = np.flatnonzero(areas >= min_area) + 1
    masks = []
    for region in kept:
        x, y, columns, rows = (int(value) for value in stats[region, :4])
        bits = (regions[y : y + rows, x : x + columns] == region).astype(np.uint8)
        masks.append(RoiMask(x + left, y + top, bits))
    return masks, count - 1 - len(masks)


def whole(binary: np.ndarray) -> RoiMask | None:
    """Everything in ``binary`` (uint8 [h,w]) as one mask cut to its box; None when there is nothing."""
    import cv2

    left, top, width, height = cv2.boundingRect(binary)
    if width == 0 or height == 0:
        return None
    return RoiMask(left, top, (binary[top : top + height, left : left + width] != 0).astype(np.uint8))
