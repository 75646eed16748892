"""Objects with masks of one sample pasted into another (Ghiasi et al. 2021, https://arxiv.org/abs/2012.07177).

Pasting is hard, pixel for pixel of the mask. The pixels on an object's rim are mixtures of it and of its surroundings already;
another mixture with the new surroundings would leave them less than half of the object, and the mask would say too much.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from apex_runtime.data.roi_mask import RoiMask
from apex_train.data.place import select
from apex_train.data.regions import Rect, bounds, tight
from apex_train.data.sample import Sample

TRIES = 8  # places tried for an object before it is given up


def paste_objects(sample: Sample, donor: Sample, most: int, keep_visible: float, rng: np.random.Generator) -> Sample:
    """``sample`` with up to ``most`` objects of ``donor``, an augmented sample of the same frame, each at a random place.

    An object fits where it lies wholly in the frame and on no ignore region. What it covers is taken from the masks below;
    objects of which less than the share ``keep_visible`` stays in sight are dropped. Boxes without a mask stay whole, or go.
    """
    height, width = sample.image.shape[:2]
    whole = [i for i, mask in enumerate(donor.masks) if mask is not None and _inside(bounds(mask), height, width)]
    if not whole:
        return sample
    chosen = rng.permutation(whole)[: rng.integers(1, min(most, len(whole)) + 1)]
    image, front = sample.image.copy(), np.full((height, width), -1, np.int32)  # which pasted object is seen; -1: none
    forbidden = np.zeros((height, width), bool)
    for region in sample.ignore:
        forbidden |= region.full(height, width).astype(bool)
    pasted: list[RoiMask] = []
    origin: list[int] = []
    for i in chosen:
        mask = donor.masks[i]
        assert mask is not None
        moved = _fitting_place(mask, forbidden, rng)
        if moved is not None:
            image[bounds(moved).slices][moved.bits] = donor.image[bounds(mask).slices][mask.bits]
            front[bounds(moved).slices][moved.bits] = len(pasted)
            pasted.append(moved)
            origin.append(int(i))
    joined = replace(
        sample,
        image=image,
        boxes=np.concatenate([sample.boxes, np.array([bounds(mask) for mask in pasted], np.float32).reshape(-1, 4)]),
        labels=np.concatenate([sample.labels, donor.labels[np.array(origin, np.int64)]]),
        masks=[*sample.masks, *pasted],
        weights=np.concatenate([sample.weights, donor.weights[np.array(origin, np.int64)]]),
    )
    return _hide_covered(joined, front, len(sample.labels), keep_visible)


def _inside(box: Rect, height: int, width: int) -> bool:
    """True when the box keeps off the border of the frame, which may have cut its object."""
    return box.left > 0 and box.top > 0 and box.right < width and box.bottom < height


def _fitting_place(mask: RoiMask, forbidden: np.ndarray, rng: np.random.Generator) -> RoiMask | None:
    height, width = forbidden.shape
    for _ in range(TRIES):
        x = int(rng.integers(0, width - mask.bits.shape[1] + 1))
        y = int(rng.integers(0, height - mask.bits.shape[0] + 1))
        moved = RoiMask(x, y, mask.bits)
        if not (forbidden[bounds(moved).slices] & mask.bits).any():
            return moved
    return None


def _hide_covered(sample: Sample, front: np.ndarray, below: int, keep_visible: float) -> Sample:
    """Take from every object what lies under a pasted one; the first ``below`` objects were there before."""
    masks, kept = list(sample.masks), []
    for i, mask in enumerate(sample.masks):
        if mask is None:
            left, top = np.floor(sample.boxes[i, :2]).astype(int)
            right, bottom = np.ceil(sample.boxes[i, 2:]).astype(int)
            share = float((front[top:bottom, left:right] < 0).mean())
        else:
            seen = mask.bits & (front[bounds(mask).slices] <= i - below if i >= below else front[bounds(mask).slices] < 0)
            share = float(seen.sum() / mask.bits.sum())
            masks[i] = tight(RoiMask(mask.x, mask.y, seen))
        if share > 0 and share >= keep_visible:
            kept.append(i)
    return select(replace(sample, masks=masks), kept)
