"""How other projects put an image into the input of their graph: stretched, or letterboxed with the padding on both sides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from apex_runtime.postprocess.letterbox import Letterbox
from apex_runtime.yardsticks.description import Input


@dataclass(frozen=True)
class Placement(Letterbox):
    """A letterbox that may be ``stretched`` to the whole input, or ``centred``; an odd row or column of padding comes last."""

    stretched: bool = False
    centred: bool = False

    @property
    def content(self) -> tuple[int, int]:
        """(h', w'): size in input pixels of the scaled image, at least 1 x 1."""
        return (self.height, self.width) if self.stretched else super().content

    @property
    def offset(self) -> tuple[int, int]:
        """(top, left): where the scaled image begins, in input pixels."""
        rows, cols = self.content
        return ((self.height - rows) // 2, (self.width - cols) // 2) if self.centred else (0, 0)


def place_image(image: np.ndarray, wanted: Input, height: int, width: int, dtype: np.dtype) -> tuple[np.ndarray, Placement]:
    """uint8 [h,w,3] RGB as ``dtype`` [3,height,width] or [height,width,3], as the description asks for, and the way back."""
    stretched, centred = wanted.resize == "stretch", wanted.resize == "letterbox" and wanted.align == "centre"
    placement = Placement(image.shape[0], image.shape[1], height, width, stretched, centred)
    image = image if wanted.rounded else image.astype(np.float32)
    canvas = np.full((height, width, 3), wanted.pad, image.dtype)
    (top, left), (rows, cols) = placement.offset, placement.content
    canvas[top : top + rows, left : left + cols] = _resized(image, rows, cols, wanted)
    if wanted.channels == "bgr":
        canvas = canvas[:, :, ::-1]
    scale = np.array(wanted.scale, np.float32) / np.array(wanted.std, np.float32)
    shift = np.array(wanted.mean, np.float32) / np.array(wanted.std, np.float32)
    numbers = (canvas * scale - shift).astype(dtype)
    return np.ascontiguousarray(numbers.transpose(2, 0, 1) if wanted.layout == "nchw" else numbers), placement


def _resized(image: np.ndarray, rows: int, cols: int, wanted: Input) -> np.ndarray:
    import cv2

    if (rows, cols) == image.shape[:2]:
        return image
    reduced = rows < image.shape[0] or cols < image.shape[1]
    area = wanted.interpolation == "area" and reduced
    return cv2.resize(image, (cols, rows), interpolation=cv2.INTER_AREA if area else cv2.INTER_LINEAR)
