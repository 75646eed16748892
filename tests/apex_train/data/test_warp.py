"""A matrix applied to a picture: exact where it only turns, centred to a tenth of a pixel elsewhere, no more work than needed."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apex_runtime.data.roi_mask import RoiMask
from apex_train.config import AugmentConfig
from apex_train.data.geometry import orientation, random_affine, random_matrix, random_window, scaling, translation, warped_bounds
from apex_train.data.place import place
from apex_train.data.regions import shrink_rows
from apex_train.data.sample import Sample
from apex_train.data.warp import plan_warp


def sample_of(image: np.ndarray, masks: list[RoiMask | None], boxes: list[list[float]] | None = None) -> Sample:
    extent = boxes or [[m.x, m.y, m.x + m.bits.shape[1], m.y + m.bits.shape[0]] for m in masks if m is not None]
    boxes_n4 = np.array(extent, np.float32).reshape(-1, 4)
    return Sample(image, boxes_n4, np.arange(len(masks)), masks, [], 1, image.shape[:2])


def disc(side: int, x: float, y: float, radius: float) -> Sample:
    """A white disc with its mask on black."""
    rows, columns = np.mgrid[:side, :side] + 0.5
    bits = (np.hypot(columns - x, rows - y) < radius).astype(np.uint8)
    top, left = np.flatnonzero(bits.any(1))[0], np.flatnonzero(bits.any(0))[0]
    mask = RoiMask(int(left), int(top), bits[bits.any(1)][:, bits.any(0)])
    return sample_of(np.repeat(bits[..., None] * np.uint8(255), 3, 2), [mask])


def centre(weights: np.ndarray) -> np.ndarray:
    """Centre of mass (x, y), the pixel in row 0 and column 0 centred on (0.5, 0.5)."""
    rows, columns = np.mgrid[: weights.shape[0], : weights.shape[1]] + 0.5
    return np.array([(columns * weights).sum(), (rows * weights).sum()]) / weights.sum()


@pytest.mark.parametrize("flips", list(itertools.product([False, True], repeat=3)))
@pytest.mark.parametrize("corner", [(0, 0), (7, 11)])
def test_turns_and_crops_are_slices(flips: tuple[bool, bool, bool], corner: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 50, 3), dtype=np.uint8)
    bits = rng.integers(0, 2, (60, 50), dtype=np.uint8)
    boxes = [[9.0, 12.0, 30.0, 33.0]]
    expected, expected_bits = (a[corner[1] :, corner[0] :][:32, :24] for a in (image, bits))
    if flips[0]:
        expected, expected_bits = expected[:, ::-1], expected_bits[:, ::-1]
    if flips[1]:
        expected, expected_bits = expected[::-1], expected_bits[::-1]
    if flips[2]:
        expected, expected_bits = expected.swapaxes(0, 1), expected_bits.T
    matrix = orientation(*flips, (32, 24)) @ translation(-corner[0], -corner[1])
    sample = sample_of(image, [RoiMask(0, 0, bits), None], [[0, 0, 50, 60], *boxes])
    seen = place(sample, matrix, expected_bits.shape, 0.0)
    np.testing.assert_array_equal(seen.image, expected)
    assert seen.masks[0].bits.dtype == bool
    np.testing.assert_array_equal(seen.masks[0].full(*expected_bits.shape), expected_bits)
    drawn = np.zeros((60, 50), bool)
    drawn[12:33, 9:30] = True
    rows_columns = np.argwhere(_like(drawn, corner, flips))
    np.testing.assert_array_equal(seen.boxes[1], [*rows_columns.min(0)[::-1], *(rows_columns.max(0)[::-1] + 1)])


def _like(array: np.ndarray, corner: tuple[int, int], flips: tuple[bool, bool, bool]) -> np.ndarray:
    piece = array[corner[1] :, corner[0] :][:32, :24]
    piece = piece[:: -1 if flips[1] else 1, :: -1 if flips[0] else 1]
    return piece.T if flips[2] else piece


BENT = AugmentConfig(affine=1, rotate=180, shear=20, translate=0.1, stretch=1.5, scale_min=0.4, scale_max=2.5)
STRAIGHT = AugmentConfig(scale_min=0.4, scale_max=2.5)


@pytest.mark.parametrize("config", [BENT, STRAIGHT], ids=["affine", "straight"])
def test_blob_mask_and_matrix_agree_on_the_centre(config: AugmentConfig) -> None:
    """Half a pixel is the classic error. The picture's blob lies where the matrix says to 0.03 px; the mask lies on the blob's
    pixels to 0.1 px each, and without a common offset to the blob (rounding to pixels moves single masks by up to 0.3 px)."""
    rng = np.random.default_rng(3)
    from_matrix, from_pixels, from_blob = [], [], []
    for _ in range(200):
        sample = disc(100, *rng.uniform(40, 60, 2), radius=rng.uniform(24, 34))
        matrix = random_matrix((100, 100), (160, 160), (128, 128), config, rng)
        seen, black = (place(s, matrix, (160, 160), 0.0) for s in (sample, replace(sample, image=np.zeros_like(sample.image))))
        if not len(seen.masks) or seen.boxes.min() < 2 or seen.boxes.max() > 158:
            continue  # cut off: its centre of mass is elsewhere
        blob = seen.image[..., 0].astype(float) - black.image[..., 0]  # less the grey around the picture
        mask = centre(seen.masks[0].full(160, 160))
        from_matrix.append(centre(blob) - (matrix @ [*centre(sample.masks[0].full(100, 100)), 1])[:2])
        from_pixels.append(mask - centre(blob >= 127))
        from_blob.append(mask - centre(blob))
    assert len(from_blob) > 100
    assert np.abs(from_matrix).max() <= 0.03 and np.abs(from_pixels).max() <= 0.1
    assert np.abs(np.mean(from_matrix, 0)).max() <= 0.002 and np.abs(np.mean(from_blob, 0)).max() <= 0.02


def test_the_identity_changes_nothing() -> None:
    sample = disc(96, 40, 50, 20)
    same = place(sample, np.eye(3), (96, 96), 1.0)
    np.testing.assert_array_equal(same.image, sample.image)
    np.testing.assert_array_equal(same.boxes, sample.boxes)
    np.testing.assert_array_equal(same.masks[0].full(96, 96), sample.masks[0].full(96, 96))


@pytest.mark.parametrize("angle", [0, 30])
def test_what_shrinks_is_averaged(angle: float) -> None:
    """A pattern finer than the pixels of the crop becomes its mean, not a moire."""
    rows, columns = np.mgrid[:400, :400]
    image = np.repeat(((rows + columns) % 2 * 255).astype(np.uint8)[..., None], 3, 2)
    turned = random_affine(AugmentConfig(rotate=angle, shear=0, stretch=1), np.random.default_rng(1))
    matrix = translation(50, 50) @ turned @ scaling(0.25, 0.25) @ translation(-200, -200)
    seen = place(sample_of(image, []), matrix, (100, 100), 0.0).image[20:80, 20:80].astype(float)
    assert abs(seen.mean() - 127.5) < 1 and seen.std() < 2


@settings(max_examples=60, deadline=None)
@given(st.integers(8, 90), st.integers(0, 40), st.integers(1, 40), st.integers(0, 10_000))
def test_part_shrinks_as_the_whole_does(cells: int, start: int, length: int, seed: int) -> None:
    """Against OpenCV's area filter on the whole."""
    bits = np.random.default_rng(seed).integers(0, 2, (length, 5), dtype=np.uint8)
    whole = np.zeros((90, 5), np.float32)
    whole[start : start + length] = bits
    expected = cv2.resize(whole, (5, cells), interpolation=cv2.INTER_AREA)
    first, part = shrink_rows(bits, start, cells / 90)
    ours = np.zeros((cells, 5))
    ours[first : first + len(part)] = part
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_a_large_scene_costs_its_window() -> None:
    """An image of 40 000 x 40 000 that takes no memory: whoever copies it whole fails."""
    scene = np.broadcast_to(np.uint8(7), (40_000, 40_000, 3))
    rng = np.random.default_rng(0)
    for config in (BENT, STRAIGHT):
        matrix = random_matrix((40_000, 40_000), (256, 256), (40_000, 40_000), config, rng)
        warp = plan_warp(matrix, (40_000, 40_000), (256, 256))
        assert warp is not None and max(warp.window.width, warp.window.height) < 2000
        assert (place(sample_of(scene, []), matrix, (256, 256), 0.0).image == 7).mean() > 0.4


def test_boxes_without_masks_are_the_bounds_of_their_corners() -> None:
    sample = sample_of(np.zeros((64, 64, 3), np.uint8), [None], [[8, 8, 24, 40]])
    np.testing.assert_allclose(place(sample, scaling(2, 2), (128, 128), 0.0).boxes, [[16, 16, 48, 80]])
    half = math.sqrt(0.5)
    turned = translation(64, 64) @ np.array([[half, -half, 0], [half, half, 0], [0, 0, 1]]) @ translation(-16, -24)
    reach = half * (16 + 32) / 2
    np.testing.assert_allclose(place(sample, turned, (128, 128), 0.0).boxes, [[64 - reach, 64 - reach, 64 + reach, 64 + reach]])


def test_boxes_alone_and_masks_in_one_picture() -> None:
    """A full rectangle as a mask and as a box alone goes to the same place, within the pixel that rounding takes."""
    mask = RoiMask(10, 20, np.ones((30, 24), np.uint8))
    rng = np.random.default_rng(2)
    for _ in range(50):
        sample = sample_of(np.zeros((80, 90, 3), np.uint8), [mask, None], [[10, 20, 34, 50]] * 2)
        seen = place(sample, random_matrix((80, 90), (96, 96), (96, 96), STRAIGHT, rng), (96, 96), 0.0)
        for label in np.unique(seen.labels):
            assert (seen.masks[list(seen.labels).index(label)] is None) == (label == 1)
        if len(seen.labels) == 2:
            np.testing.assert_allclose(seen.boxes[0], seen.boxes[1], atol=0.51)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("keep", "stays"), [(0.2, True), (0.3, False)])
def test_objects_mostly_out_of_sight_are_dropped(masked: bool, keep: float, stays: bool) -> None:
    mask = RoiMask(0, 0, np.ones((20, 40), np.uint8)) if masked else None
    sample = sample_of(np.zeros((64, 64, 3), np.uint8), [mask], [[0, 0, 40, 20]])
    for matrix in (translation(-30, 0), translation(-30, 0) @ scaling(1 + 1e-4, 1)):  # a quarter stays, by slices and resampled
        assert len(place(sample, matrix, (64, 64), keep).labels) == stays


def test_slivers_are_dropped() -> None:
    sample = sample_of(np.zeros((64, 64, 3), np.uint8), [RoiMask(0, 0, np.ones((20, 40), np.uint8))])
    assert len(place(sample, translation(-38, 0), (64, 64), 0.0).labels) == 1
    assert len(place(sample, translation(-39, 0), (64, 64), 0.0).labels) == 0


def test_outside_of_the_picture_is_grey_and_empty() -> None:
    sample = disc(32, 16, 16, 8)
    far = place(sample, translation(500, 0), (40, 40), 0.0)
    assert (far.image == 114).all() and far.boxes.shape == (0, 4) and far.masks == []
    beside = place(sample, translation(4, 8), (40, 40), 0.0)
    assert (beside.image[:8] == 114).all() and (beside.image[:, :4] == 114).all() and (beside.image[8:, 4:36] != 114).all()


def test_ignore_regions_go_the_same_way() -> None:
    sample = disc(80, 40, 40, 20)
    both = Sample(sample.image, sample.boxes, sample.labels, sample.masks, [sample.masks[0]], 1, (80, 80))
    seen = place(both, random_matrix((80, 80), (96, 96), (96, 96), BENT, np.random.default_rng(5)), (96, 96), 0.0)
    np.testing.assert_array_equal(seen.ignore[0].full(96, 96), seen.masks[0].full(96, 96))
    assert seen.ignore[0].bits.dtype == bool


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(16, 300), st.integers(16, 300), st.integers(0, 1000))
def test_windows_lie_in_the_image_and_fill_the_frame(height: int, width: int, rows: int, columns: int, seed: int) -> None:
    window = random_window((height, width), (rows, columns), (512, 512), AugmentConfig(), np.random.default_rng(seed))
    assert 0 <= window.left < window.right <= width and 0 <= window.top < window.bottom <= height
    assert 1 <= window.width <= columns and 1 <= window.height <= rows
    assert window.width == columns or window.right - window.left == width  # grey only where the picture ends
    assert window.height == rows or window.bottom - window.top == height
    warp = plan_warp(
        random_matrix((height, width), (rows, columns), (512, 512), AugmentConfig(), np.random.default_rng(seed)),
        (height, width),
        (rows, columns),
    )
    assert warp is not None and warp.aligned


def test_warped_bounds_against_points() -> None:
    rng = np.random.default_rng(0)
    matrix = random_affine(BENT, rng)
    boxes = rng.uniform(0, 50, (5, 2))
    boxes = np.concatenate([boxes, boxes + rng.uniform(1, 30, (5, 2))], 1)
    for box, bounds in zip(boxes, warped_bounds(boxes, matrix), strict=True):
        points = np.stack([rng.uniform(box[0], box[2], 500), rng.uniform(box[1], box[3], 500), np.ones(500)])
        moved = (matrix @ points)[:2]
        assert (moved >= bounds[:2, None]).all() and (moved <= bounds[2:, None]).all()
        assert (moved.max(1) - moved.min(1) > 0.7 * (bounds[2:] - bounds[:2])).all()
