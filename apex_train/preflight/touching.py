"""Which masks of an image share an edge or a pixel: components and NMS have trouble with them, so they are worth knowing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apex_runtime.data.roi_mask import RoiMask


def touching(masks: Sequence[RoiMask], height: int, width: int) -> int:
    """How many of the masks of an image (pixels) touch another one along an edge, or overlap it; corners do not count.

    Every mask is painted in its own number. Who is painted over has overlapped, and what still shows is compared with its
    neighbours: that counts each mask that touches, though not each pair.
    """
    if len(masks) < 2:
        return 0
    canvas = np.zeros((height, width), np.int32)
    found = np.zeros(len(masks) + 1, bool)
    for number, mask in enumerate(masks, 1):
        rows, columns = mask.bits.shape
        window = canvas[mask.y : mask.y + rows, mask.x : mask.x + columns]
        inside = mask.bits.view(bool)[: window.shape[0], : window.shape[1]]
        below = window[inside]
        if below.any():
            found[below] = True
            found[number] = True
        window[inside] = number
    for near, far in ((canvas[:, :-1], canvas[:, 1:]), (canvas[:-1], canvas[1:])):
        edge = (near != far) & (near > 0) & (far > 0)
        found[near[edge]] = True
        found[far[edge]] = True
    return int(found[1:].sum())
