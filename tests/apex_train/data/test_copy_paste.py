"""Pasted objects: whole, off the ignore regions, and in front of what they cover."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from apex_runtime.data.roi_mask import RoiMask
from apex_train.data.copy_paste import paste_objects
from apex_train.data.sample import Sample

SIDE = 48


def block(x: int, y: int, width: int, height: int) -> RoiMask:
    return RoiMask(x, y, np.ones((height, width), bool))


def sample_of(
    value: int, blocks: list[tuple[int, int, int, int]], masked: bool = True, ignore: list[RoiMask] | None = None
) -> Sample:
    """An even image with rectangular objects, labelled from ``value`` on."""
    boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in blocks], np.float32).reshape(-1, 4)
    masks: list[RoiMask | None] = [block(*item) if masked else None for item in blocks]
    image = np.full((SIDE, SIDE, 3), value, np.uint8)
    return Sample(image, boxes, value + np.arange(len(blocks)), masks, ignore or [], value, (SIDE, SIDE))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_every_pixel_belongs_to_what_is_seen_there(seed: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    blocks = [(int(x), int(y), int(w), int(h)) for x, y, w, h in rng.integers([1, 1, 3, 3], [20, 20, 24, 24], (5, 4))]
    region = block(5, 30, 20, 10)
    joined = paste_objects(sample_of(10, blocks, ignore=[region]), sample_of(100, blocks), most, 0.0, np.random.default_rng(seed))
    pasted = [mask for mask, label in zip(joined.masks, joined.labels, strict=True) if label >= 100]
    covered = sum(mask.full(SIDE, SIDE).astype(int) for mask in pasted)
    assert len(pasted) <= most
    assert np.max(covered, initial=0) <= 1  # a pasted one hides the ones pasted before it
    assert ((joined.image[..., 0] == 100) >= (np.asarray(covered) == 1)).all()
    assert not (region.full(SIDE, SIDE).astype(bool) & (joined.image[..., 0] == 100)).any()
    for box, mask, label in zip(joined.boxes, joined.masks, joined.labels, strict=True):
        assert mask.bits.dtype == bool and mask.bits.any(0)[[0, -1]].all() and mask.bits.any(1)[[0, -1]].all()
        assert box.tolist() == [mask.x, mask.y, mask.x + mask.bits.shape[1], mask.y + mask.bits.shape[0]]
        values = joined.image[mask.y : mask.y + mask.bits.shape[0], mask.x : mask.x + mask.bits.shape[1], 0][mask.bits]
        assert (values == (100 if label >= 100 else 10)).all()


def covering(masked: bool, keep: float, wide: int) -> Sample:
    """A donor that is as high as the frame allows covers the left of an object that is all of the frame."""
    below = sample_of(10, [(0, 0, SIDE, SIDE)], masked)
    return paste_objects(below, sample_of(100, [(1, 1, wide, SIDE - 2)]), 1, keep, np.random.default_rng(0))


def test_covered_objects_lose_those_pixels_or_go() -> None:
    joined = covering(True, 0.5, 10)
    assert joined.labels.tolist() == [10, 100]
    assert joined.masks[0].area + joined.masks[1].area == SIDE * SIDE and joined.masks[1].area == 10 * (SIDE - 2)
    assert covering(True, 0.5, 40).labels.tolist() == [100]
    assert covering(True, 0.1, 40).labels.tolist() == [10, 100]


def test_boxes_without_masks_stay_whole_or_go() -> None:
    joined = covering(False, 0.5, 10)
    assert joined.masks[0] is None and joined.boxes[0].tolist() == [0, 0, SIDE, SIDE]
    assert covering(False, 0.5, 40).labels.tolist() == [100]


def test_objects_cut_by_the_frame_or_without_a_mask_are_not_pasted() -> None:
    below = sample_of(10, [(4, 4, 8, 8)])
    for donor in (sample_of(100, [(0, 8, 9, 9), (20, SIDE - 9, 9, 9)]), sample_of(100, [(8, 8, 9, 9)], masked=False)):
        assert paste_objects(below, donor, 4, 0.0, np.random.default_rng(0)) is below


def test_nothing_fits_where_all_is_ignored() -> None:
    below = sample_of(10, [], ignore=[block(0, 0, SIDE, SIDE)])
    joined = paste_objects(below, sample_of(100, [(8, 8, 9, 9)]), 4, 0.0, np.random.default_rng(0))
    assert len(joined.labels) == 0 and (joined.image == 10).all()


def test_the_samples_themselves_are_untouched() -> None:
    below, donor = sample_of(10, [(4, 4, 30, 30)]), sample_of(100, [(8, 8, 9, 9)])
    paste_objects(below, donor, 4, 0.0, np.random.default_rng(0))
    assert (below.image == 10).all() and below.masks[0].area == 900 and donor.masks[0].area == 81
