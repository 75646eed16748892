"""Scale an image to the size of the graph and find the way back.

The content of our engines lies in the top left corner, so one multiplication per axis maps between the two frames. Pixel centres
are at +0.5 in both: source pixel x has its centre at input coordinate (x + 0.5) * scale_x, plus the offset where there is one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PAD_VALUE = 114


@dataclass(frozen=True)
class Letterbox:
    """A source image of ``source_height`` x ``source_width`` pixels inside an input of ``height`` x ``width`` pixels."""

    source_height: int
    source_width: int
    height: int
    width: int

    @property
    def scale(self) -> float:
        """r, input pixels per source pixel: the largest that fits. Above 1 the image is enlarged."""
        return min(self.height / self.source_height, self.width / self.source_width)

    @property
    def content(self) -> tuple[int, int]:
        """(h', w'): size in input pixels of the scaled image, at least 1 x 1."""
        return max(1, round(self.source_height * self.scale)), max(1, round(self.source_width * self.scale))

    @property
    def scales(self) -> tuple[float, float]:
        """(vertical, horizontal) scale after the content was rounded to whole pixels: what ``cv2.resize`` really does."""
        rows, cols = self.content
        return rows / self.source_height, cols / self.source_width

    @property
    def offset(self) -> tuple[int, int]:
        """(top, left): where the content begins, in input pixels. Other than 0 only for what is not ours (``yardsticks``)."""
        return (0, 0)

    def boxes_to_source(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes float [n,4] xyxy from input to source pixels, float32, cut to the image (they may come out without area)."""
        (vertical, horizontal), (top, left) = self.scales, self.offset
        moved = np.asarray(boxes, np.float32).reshape(-1, 4) - np.array([left, top] * 2, np.float32)
        scaled = moved / np.array([horizontal, vertical] * 2, np.float32)
        limit = np.array([self.source_width, self.source_height] * 2, np.float32)
        return np.clip(scaled, 0, limit)


def letterbox_image(image: np.ndarray, height: int, width: int) -> tuple[np.ndarray, Letterbox]:
    """uint8 [h,w,3] as uint8 [height,width,3], padded with grey on the right or at the bottom, and the mapping."""
    import cv2

    box = Letterbox(image.shape[0], image.shape[1], height, width)
    rows, cols = box.content
    canvas = np.full((height, width, 3), PAD_VALUE, np.uint8)
    if (rows, cols) == image.shape[:2]:
        canvas[:rows, :cols] = image
    else:
        interpolation = cv2.INTER_AREA if box.scale < 1 else cv2.INTER_LINEAR
        canvas[:rows, :cols] = cv2.resize(image, (cols, rows), interpolation=interpolation)
    return canvas, box
