"""What the windows of a scene found, in pixels of the scene, small enough to hold tens of thousands of it.

Legend: D detections of all windows.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.data.scenes.windows import Window
from apex_runtime.detections import Detections

_BORDER = 1.5  # pixels: a box that ends this close to the border of its window, where the scene goes on, was cut there


@dataclass(frozen=True, eq=False)
class PackedMask:
    """A ``RoiMask`` in a few hundred bytes."""

    x: int
    y: int
    rows: int
    cols: int
    area: int
    data: bytes

    @classmethod
    def of(cls, mask: RoiMask, x: int = 0, y: int = 0) -> PackedMask:
        """A mask moved by ``x`` columns and ``y`` rows."""
        rows, cols = mask.bits.shape
        return cls(mask.x + x, mask.y + y, rows, cols, mask.area, zlib.compress(np.packbits(mask.bits).tobytes(), 1))

    def unpack(self) -> RoiMask:
        """The mask as it was."""
        bits = np.unpackbits(np.frombuffer(zlib.decompress(self.data), np.uint8), count=self.rows * self.cols)
        return RoiMask(self.x, self.y, bits.reshape(self.rows, self.cols))


@dataclass(frozen=True, eq=False)
class Found:
    """Detections in pixels of the scene: ``boxes`` float64 [D,4] xyxy, ``scores`` float32 [D], ``labels`` int64 [D], D ``masks``;
    ``cut`` bool [D]: whether the border of the window cut the object."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: list[PackedMask]
    cut: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def none(cls) -> Found:
        """Nothing."""
        return cls(np.zeros((0, 4)), np.zeros(0, np.float32), np.zeros(0, np.int64), [], np.zeros(0, bool))

    def head(self, most: int | None) -> Found:
        """The first ``most`` of them; all when None."""
        return Found(self.boxes[:most], self.scores[:most], self.labels[:most], self.masks[:most], self.cut[:most])


def found_in(detections: Detections, window: Window, height: int, width: int) -> Found:
    """The detections of one window of a scene of ``height`` x ``width`` pixels."""
    boxes = detections.boxes.astype(np.float64)
    inner = np.array([window.x > 0, window.y > 0, window.x + window.width < width, window.y + window.height < height])
    gaps = np.stack([boxes[:, 0], boxes[:, 1], window.width - boxes[:, 2], window.height - boxes[:, 3]], axis=1)
    return Found(
        boxes + np.array([window.x, window.y] * 2),
        detections.scores,
        detections.labels,
        [PackedMask.of(mask, window.x, window.y) for mask in detections.masks],
        ((gaps < _BORDER) & inner).any(1),
    )


def together(parts: Sequence[Found]) -> Found:
    """The detections of several windows, one window after the other."""
    parts = parts or [Found.none()]
    boxes, scores, labels, cut = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("boxes", "scores", "labels", "cut")
    )
    return Found(boxes, scores, labels, [mask for part in parts for mask in part.masks], cut)
