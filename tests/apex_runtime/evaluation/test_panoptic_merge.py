import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.evaluation.panoptic_merge import merge_panoptic
from apex_runtime.postprocess.rle import rle_to_roi, roi_to_rle

HEIGHT, WIDTH = 14, 17


def results(rng: np.random.Generator, count: int) -> list[dict]:
    entries = []
    for _ in range(count):
        h, w = int(rng.integers(1, 9)), int(rng.integers(1, 9))
        bits = (rng.random((h, w)) < 0.8).astype(np.uint8)
        mask = RoiMask(int(rng.integers(0, WIDTH - w + 1)), int(rng.integers(0, HEIGHT - h + 1)), bits)
        score = float(rng.random())
        entries.append({"category_id": int(rng.integers(1, 4)), "score": score, "segmentation": roi_to_rle(mask, HEIGHT, WIDTH)})
    return entries


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.floats(0, 1), st.floats(0, 1))
def test_pasted_one_after_the_other(seed: int, count: int, min_score: float, max_overlap: float) -> None:
    entries = results(np.random.default_rng(seed), count)
    expected = np.zeros((HEIGHT, WIDTH), int)
    classes = []
    for entry in sorted(entries, key=lambda e: e["score"], reverse=True):
        roi = rle_to_roi(entry["segmentation"])
        if roi is None or entry["score"] < min_score:
            continue
        mask = roi.full(HEIGHT, WIDTH) == 1
        taken = (mask & (expected > 0)).sum()
        if taken == mask.sum() or taken > max_overlap * mask.sum():
            continue
        classes.append(entry["category_id"])
        expected[mask & (expected == 0)] = len(classes)
    found = merge_panoptic(entries, HEIGHT, WIDTH, min_score, max_overlap)
    np.testing.assert_array_equal(found.ids_hw, expected)
    assert [segment.segment_id for segment in found.segments] == list(range(1, len(classes) + 1))
    assert [segment.category_id for segment in found.segments] == classes


@pytest.mark.parametrize(("overlap", "kept"), [(4, 2), (5, 2), (6, 1)])
def test_half_of_a_mask_may_be_covered(overlap: int, kept: int) -> None:
    masks = [RoiMask(0, 0, np.ones((1, 10), np.uint8)), RoiMask(10 - overlap, 0, np.ones((1, 10), np.uint8))]
    rles = [roi_to_rle(mask, 3, 20) for mask in masks]
    entries = [{"category_id": 1, "score": score, "segmentation": rle} for score, rle in zip((0.5, 0.9), rles, strict=True)]
    assert len(merge_panoptic(entries, 3, 20).segments) == kept
    assert merge_panoptic([entry | {"score": 0.49} for entry in entries], 3, 20).segments == ()


def test_polygons_are_masks_too() -> None:
    entry = {"category_id": 3, "score": 0.8, "segmentation": [[2, 1, 6, 1, 6, 4, 2, 4]]}
    ids = merge_panoptic([entry], 6, 9).ids_hw
    assert ids.sum() == 12 and ids[1:4, 2:6].all()
