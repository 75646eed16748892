"""A sample seen through a matrix, and samples put side by side: what stays of the objects, and with which boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from apex_runtime.data.roi_mask import RoiMask
from apex_train.data.geometry import warped_bounds
from apex_train.data.regions import Rect, bounds, cut
from apex_train.data.sample import Sample
from apex_train.data.warp import PAD_VALUE, Warp, clip_boxes, plan_warp

MIN_SIDE = 2.0  # pixels; what is thinner after the crop is a sliver of a neighbour, not an object


def place(sample: Sample, matrix: np.ndarray, frame: tuple[int, int], keep_visible: float) -> Sample:
    """``sample`` through ``matrix`` [3,3] in a grey ``frame`` (height, width). Masks come in as uint8 0 and 1 and leave as bool.

    Boxes are their masks' bounds where there are masks, else the bounds of their warped corners. Objects of which nothing, or
    less than the share ``keep_visible``, is in sight are dropped.
    """
    canvas = np.full((*frame, 3), PAD_VALUE, np.uint8)
    warp = plan_warp(matrix, sample.image.shape[:2], frame)
    if warp is None:
        return select(replace(sample, image=canvas, ignore=[]), [])
    canvas[warp.target.slices] = warp.pixels(sample.image)
    extent = [box if mask is None else bounds(mask) for box, mask in zip(sample.boxes, sample.masks, strict=True)]
    whole = warped_bounds(np.array(extent, np.float64).reshape(-1, 4), matrix)
    boxes = clip_boxes(whole, frame)
    shares = _areas(boxes) / np.maximum(_areas(whole), 1e-9)
    masks: list[RoiMask | None] = [None] * len(shares)
    growth = abs(np.linalg.det(matrix))
    for i in np.flatnonzero(shares > 0):
        mask = sample.masks[i]
        if mask is not None:
            masks[i], shares[i] = _place_mask(mask, warp, growth)
    ignore = [found for region in sample.ignore if (found := warp.region(region)) is not None]
    moved = replace(sample, image=canvas, boxes=boxes.astype(np.float32), masks=masks, ignore=ignore)
    return select(moved, np.flatnonzero((shares > 0) & (shares >= keep_visible)))


def _place_mask(mask: RoiMask, warp: Warp, growth: float) -> tuple[RoiMask | None, float]:
    """The mask in the frame, and how much of it is in sight: counted in the source where the window says what is seen, else
    as its area against the ``growth`` of areas."""
    found = warp.region(mask)
    if found is None:
        return None, 0.0
    if warp.aligned:
        part = cut(mask, warp.window)
        return found, part.area / mask.area if part else 0.0
    return found, min(1.0, found.area / (mask.area * growth))


def select(sample: Sample, kept: Sequence[int] | np.ndarray) -> Sample:
    """The objects ``kept`` of the sample, each box its mask's bounds; those thinner than MIN_SIDE are left out as well."""
    boxes = sample.boxes.copy()
    for i in kept:
        mask = sample.masks[i]
        if mask is not None:
            boxes[i] = bounds(mask)
    kept = [i for i in kept if (boxes[i, 2:] - boxes[i, :2]).min() >= MIN_SIDE]
    index = np.array(kept, np.int64)
    return replace(
        sample,
        boxes=boxes[index],
        labels=sample.labels[index],
        masks=[sample.masks[i] for i in kept],
        weights=sample.weights[index],
    )


def side_by_side(samples: Sequence[Sample], places: Sequence[Rect], frame: tuple[int, int]) -> Sample:
    """Samples in one grey ``frame`` (height, width), each in its place; the first one gives what names the picture."""
    canvas = np.full((*frame, 3), PAD_VALUE, np.uint8)
    boxes: list[np.ndarray] = []
    masks: list[RoiMask | None] = []
    ignore: list[RoiMask] = []
    for sample, at in zip(samples, places, strict=True):
        canvas[at.slices] = sample.image
        boxes.append(sample.boxes + np.array([at.left, at.top, at.left, at.top], np.float32))
        masks += [mask and shifted(mask, at.left, at.top) for mask in sample.masks]
        ignore += [shifted(region, at.left, at.top) for region in sample.ignore]
    labels = np.concatenate([sample.labels for sample in samples])
    weights = np.concatenate([sample.weights for sample in samples])
    joined = np.concatenate(boxes)
    return replace(samples[0], image=canvas, boxes=joined, labels=labels, masks=masks, ignore=ignore, weights=weights)


def shifted(mask: RoiMask, x: int, y: int) -> RoiMask:
    """The mask moved by whole pixels."""
    return RoiMask(mask.x + x, mask.y + y, mask.bits)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
