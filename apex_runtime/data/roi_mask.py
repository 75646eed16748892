"""A binary mask cut to its bounding box: 375 nuclei of a large image cost their own pixels, not 375 images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class RoiMask:
    """The window ``bits`` (uint8 [h,w], values 0 and 1) of an otherwise empty mask, its corner at column ``x``, row ``y``."""

    x: int
    y: int
    bits: np.ndarray

    @property
    def area(self) -> int:
        """Number of pixels of the mask."""
        return int(np.count_nonzero(self.bits))

    def full(self, height: int, width: int) -> np.ndarray:
        """The mask on its image, uint8 [height,width]. What lies outside the image is cut off."""
        canvas = np.zeros((height, width), np.uint8)
        self.place_on(canvas)
        return canvas

    def place_on(self, canvas_hw: np.ndarray) -> None:
        """Write the window over its place on an image, uint8 or bool. What lies outside the image is cut off."""
        height, width = canvas_hw.shape
        top, left = max(self.y, 0), max(self.x, 0)
        bottom, right = min(self.y + self.bits.shape[0], height), min(self.x + self.bits.shape[1], width)
        if bottom > top and right > left:
            canvas_hw[top:bottom, left:right] = self.bits[top - self.y : bottom - self.y, left - self.x : right - self.x]
