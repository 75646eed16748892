"""Random crops, scales, flips and light, applied to image, boxes and masks together.

The window is cut out of the source first and only that window is scaled, so a large scene costs no more than a small picture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from apex_runtime.data.roi_mask import RoiMask
from apex_train.config import AugmentConfig
from apex_train.data.sample import Sample

PAD_VALUE = 114
MIN_SIDE = 2.0  # pixels; what is thinner after the crop is a sliver of a neighbour, not an object


@dataclass(frozen=True)
class Window:
    """Source pixels [top:bottom, left:right], scaled to ``height`` x ``width`` pixels of the crop."""

    left: int
    top: int
    right: int
    bottom: int
    width: int
    height: int

    @property
    def scale(self) -> tuple[float, float]:
        """Exact factors (x, y) from source to crop pixels."""
        return self.width / (self.right - self.left), self.height / (self.bottom - self.top)


def augment(sample: Sample, size: int, crop: int, config: AugmentConfig, rng: np.random.Generator) -> Sample:
    """A random ``crop`` x ``crop`` piece of the sample at about the scale that a letterbox of side ``size`` gives it."""
    window = random_window(sample.image.shape[:2], size, crop, config, rng)
    piece = cut(sample, window, crop, config.keep_visible)
    if rng.random() < config.flip_horizontal:
        piece = flip_horizontal(piece)
    if rng.random() < config.flip_vertical:
        piece = transpose(flip_horizontal(transpose(piece)))
    if rng.random() < config.transpose:
        piece = transpose(piece)
    return relight(piece, config, rng)


def random_window(shape: tuple[int, int], size: int, crop: int, config: AugmentConfig, rng: np.random.Generator) -> Window:
    """Where to look: a scale log-uniform around the letterbox scale, then a place uniform over the image."""
    height, width = shape
    jitter = np.exp(rng.uniform(np.log(config.scale_min), np.log(config.scale_max)))
    scale = min(size / height, size / width) * jitter
    span_x, span_y = (min(side, max(1, round(crop / scale))) for side in (width, height))
    left, top = int(rng.integers(0, width - span_x + 1)), int(rng.integers(0, height - span_y + 1))
    out_w, out_h = (min(crop, max(1, round(span * scale))) for span in (span_x, span_y))
    return Window(left, top, left + span_x, top + span_y, out_w, out_h)


def cut(sample: Sample, window: Window, crop: int, keep_visible: float = 0.0) -> Sample:
    """The window, scaled, in the top left corner of a grey ``crop`` x ``crop`` image; objects mostly outside are dropped."""
    source = sample.image[window.top : window.bottom, window.left : window.right]
    shrinks = window.width < source.shape[1]
    canvas = np.full((crop, crop, 3), PAD_VALUE, np.uint8)
    canvas[: window.height, : window.width] = cv2.resize(
        source, (window.width, window.height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    boxes, labels, masks = [], [], []
    for box, label, mask in zip(sample.boxes, sample.labels, sample.masks, strict=True):
        placed = _place_box(box, window, keep_visible)
        if placed is None:
            continue
        piece = None
        if mask is not None:
            piece = _place_mask(mask, window)
            if piece is None:
                continue
            placed = _tight_box(piece)
        if min(placed[2] - placed[0], placed[3] - placed[1]) < MIN_SIDE:
            continue
        boxes.append(placed)
        labels.append(label)
        masks.append(piece)
    return Sample(
        canvas,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels, np.int64),
        masks,
        [piece for region in sample.ignore if (piece := _place_mask(region, window)) is not None],
        sample.image_id,
        sample.original_size,
        sample.categories,
        sample.scaling,
    )


def flip_horizontal(sample: Sample) -> Sample:
    """Mirror left and right."""
    width = sample.image.shape[1]
    boxes = sample.boxes.copy()
    boxes[:, [0, 2]] = width - sample.boxes[:, [2, 0]]
    mirrored = replace(sample, ignore=[_mirror(region, width) for region in sample.ignore])
    return _with(mirrored, sample.image[:, ::-1], boxes, [m and _mirror(m, width) for m in sample.masks])


def transpose(sample: Sample) -> Sample:
    """Swap rows and columns."""
    masks = [m and RoiMask(m.y, m.x, m.bits.T) for m in sample.masks]
    turned = replace(sample, ignore=[RoiMask(m.y, m.x, m.bits.T) for m in sample.ignore])
    return _with(turned, sample.image.swapaxes(0, 1), sample.boxes[:, [1, 0, 3, 2]], masks)


def relight(sample: Sample, config: AugmentConfig, rng: np.random.Generator) -> Sample:
    """Random contrast around mid-grey and random brightness; geometry untouched."""
    gain = 1 + rng.uniform(-config.contrast, config.contrast)
    shift = 255 * rng.uniform(-config.brightness, config.brightness)
    table = np.clip((np.arange(256) - 127.5) * gain + 127.5 + shift, 0, 255).round().astype(np.uint8)
    return _with(sample, table[sample.image], sample.boxes, sample.masks)


def _with(sample: Sample, image: np.ndarray, boxes: np.ndarray, masks: list[RoiMask | None]) -> Sample:
    return replace(sample, image=np.ascontiguousarray(image), boxes=boxes, masks=masks)


def _mirror(mask: RoiMask, width: int) -> RoiMask:
    return RoiMask(width - mask.x - mask.bits.shape[1], mask.y, mask.bits[:, ::-1])


def _place_box(box: np.ndarray, window: Window, keep_visible: float) -> np.ndarray | None:
    """The box in crop pixels, or None when too little of its area lies in the window."""
    limits = np.array([window.left, window.top, window.right, window.bottom], np.float32)
    inside = np.concatenate([np.maximum(box[:2], limits[:2]), np.minimum(box[2:], limits[2:])])
    seen = max(0.0, inside[2] - inside[0]) * max(0.0, inside[3] - inside[1])
    if seen <= keep_visible * (box[2] - box[0]) * (box[3] - box[1]):
        return None
    sx, sy = window.scale
    return (inside - [window.left, window.top, window.left, window.top]) * [sx, sy, sx, sy]


def _place_mask(mask: RoiMask, window: Window) -> RoiMask | None:
    """The mask's part inside the window, scaled as the image is, or None when nothing is left."""
    sx, sy = window.scale
    left, top = max(mask.x, window.left), max(mask.y, window.top)
    right, bottom = min(mask.x + mask.bits.shape[1], window.right), min(mask.y + mask.bits.shape[0], window.bottom)
    if right <= left or bottom <= top:
        return None
    part = mask.bits[top - mask.y : bottom - mask.y, left - mask.x : right - mask.x]
    x0, y0 = (left - window.left) * sx, (top - window.top) * sy
    out_x, out_y = int(np.floor(x0)), int(np.floor(y0))
    out_w = int(np.ceil((right - window.left) * sx)) - out_x
    out_h = int(np.ceil((bottom - window.top) * sy)) - out_y
    # Pixel centres: source (j + 0.5) maps to crop (j + 0.5) * s, so the affine of sample positions carries half-pixel terms.
    matrix = np.array([[sx, 0, x0 - out_x + 0.5 * sx - 0.5], [0, sy, y0 - out_y + 0.5 * sy - 0.5]])
    scaled = cv2.warpAffine(np.ascontiguousarray(part) * np.uint8(255), matrix, (out_w, out_h), flags=cv2.INTER_LINEAR)
    bits = scaled >= 128
    rows, cols = np.flatnonzero(bits.any(1)), np.flatnonzero(bits.any(0))
    if not len(rows):
        return None
    tight = bits[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    return RoiMask(out_x + int(cols[0]), out_y + int(rows[0]), tight)


def _tight_box(mask: RoiMask) -> np.ndarray:
    return np.array([mask.x, mask.y, mask.x + mask.bits.shape[1], mask.y + mask.bits.shape[0]], np.float64)
