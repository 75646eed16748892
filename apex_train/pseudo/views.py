"""An image as a model may see it too: mirrored, or smaller; and what it found there, back in the pixels of the image.

Smaller means on a larger canvas: an engine scales every image to its input, so that shrinking it alone would change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.detections import Detections
from apex_runtime.errors import UsageError
from apex_runtime.postprocess.letterbox import PAD_VALUE, Letterbox

DEFAULT_VIEWS = ("flip-x", "flip-y", "scale-0.75")
_SCALE = "scale-"
_REMEDY = "Known are flip-x, flip-y, flip-xy and scale-S with S from 0.25 to below 1, for example scale-0.75."


@dataclass(frozen=True)
class View:
    """``name`` as the user wrote it; mirrored left to right, top to bottom; ``scale`` below 1 shows everything smaller."""

    name: str
    flip_x: bool = False
    flip_y: bool = False
    scale: float = 1.0

    def of(self, image_hw3: np.ndarray) -> np.ndarray:
        """What the model is shown: uint8 [h',w',3] of an image uint8 [h,w,3]."""
        rows = slice(None, None, -1) if self.flip_y else slice(None)
        cols = slice(None, None, -1) if self.flip_x else slice(None)
        seen = np.ascontiguousarray(image_hw3[rows, cols])
        if self.scale == 1.0:
            return seen
        height, width = (round(side / self.scale) for side in image_hw3.shape[:2])
        canvas = np.full((height, width, 3), PAD_VALUE, np.uint8)
        canvas[: seen.shape[0], : seen.shape[1]] = seen
        return canvas

    def back(self, found: Detections, height: int, width: int) -> Detections:
        """What was found in the view, in the pixels of the image of this size; what lies beyond its rim is cut off."""
        boxes = found.boxes.copy()
        if self.flip_x:
            boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        if self.flip_y:
            boxes[:, [1, 3]] = height - boxes[:, [3, 1]]
        boxes = np.clip(boxes, 0, np.array([width, height] * 2, np.float32))
        inside_n = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        cuts = [_cut(self._turned(mask, height, width), height, width) for mask in found.masks]
        seen = [n for n, cut in enumerate(cuts) if cut is not None and inside_n[n]]
        letterbox = Letterbox(height, width, found.letterbox.height, found.letterbox.width)
        masks = [cut for n in seen if (cut := cuts[n]) is not None]
        return replace(picked(replace(found, boxes=boxes), np.array(seen, np.int64)), masks=masks, letterbox=letterbox)

    def _turned(self, mask: RoiMask, height: int, width: int) -> RoiMask:
        rows, cols = mask.bits.shape
        bits = mask.bits[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]
        return RoiMask(width - mask.x - cols if self.flip_x else mask.x, height - mask.y - rows if self.flip_y else mask.y, bits)


def picked(found: Detections, index_n: np.ndarray) -> Detections:
    """Some of the detections of an image, in this order."""
    return replace(
        found,
        boxes=found.boxes[index_n],
        scores=found.scores[index_n],
        labels=found.labels[index_n],
        category_ids=found.category_ids[index_n],
        masks=[found.masks[index] for index in index_n.tolist()],
    )


def parse_views(names: Sequence[str]) -> tuple[View, ...]:
    """The views of these names; ``none`` alone means no view. Raises UsageError."""
    if tuple(names) == ("none",):
        return ()
    if len(set(names)) != len(names):
        raise UsageError(f"--views {','.join(names)}: a view is named twice.", "Name each once.")
    return tuple(_parse(name) for name in names)


def _parse(name: str) -> View:
    flips = {"flip-x": (True, False), "flip-y": (False, True), "flip-xy": (True, True)}
    if name in flips:
        return View(name, *flips[name])
    try:
        scale = float(name.removeprefix(_SCALE)) if name.startswith(_SCALE) else 0.0
    except ValueError:
        scale = 0.0
    if not 0.25 <= scale < 1:
        raise UsageError(f"--views {name}: no such view.", _REMEDY)
    return View(name, scale=scale)


def _cut(mask: RoiMask, height: int, width: int) -> RoiMask | None:
    """The part of a mask that lies in the image; None when its window does not reach it."""
    top, left = max(mask.y, 0), max(mask.x, 0)
    bits = mask.bits[top - mask.y : height - mask.y, left - mask.x : width - mask.x]
    return RoiMask(left, top, bits) if mask.y < height and mask.x < width and bits.size else None
