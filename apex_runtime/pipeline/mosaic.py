"""The sheet to draw a scene on, put together of its windows at the size of a picture: the scene itself may not fit in memory."""

from __future__ import annotations

import numpy as np

from apex_runtime.pipeline.annotate import Picture, picture_size


class Mosaic:
    """A picture of a scene of ``height`` x ``width`` pixels, in the size that pictures of such images have."""

    def __init__(self, height: int, width: int) -> None:
        self._canvas = np.zeros((*picture_size(height, width), 3), np.uint8)
        self._scale_y, self._scale_x = self._canvas.shape[0] / height, self._canvas.shape[1] / width

    def add(self, x: int, y: int, pixels: np.ndarray) -> None:
        """A window of the scene, uint8 [h,w,3], whose corner is at column ``x``, row ``y``."""
        import cv2

        height, width = pixels.shape[:2]
        top, bottom = round(y * self._scale_y), round((y + height) * self._scale_y)
        left, right = round(x * self._scale_x), round((x + width) * self._scale_x)
        if bottom > top and right > left:
            how = cv2.INTER_AREA if min(self._scale_y, self._scale_x) < 1 else cv2.INTER_CUBIC
            self._canvas[top:bottom, left:right] = cv2.resize(pixels, (right - left, bottom - top), interpolation=how)

    def picture(self) -> Picture:
        """What was added so far."""
        return Picture(self._canvas, self._scale_y, self._scale_x)
