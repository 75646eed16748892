"""Image, boxes and masks must stay aligned through every transformation: each object is painted in a colour of its own, so the
picture itself says where it went."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apex_runtime.data.roi_mask import RoiMask
from apex_train.config import AugmentConfig
from apex_train.data.augment import Window, augment, cut, flip_horizontal, random_window, relight, transpose
from apex_train.data.sample import Sample

PLAIN = AugmentConfig(brightness=0, contrast=0, keep_visible=0)


def painted(height: int, width: int, seed: int, count: int = 6) -> Sample:
    """Discs that do not overlap on black: green 255 says object, red = 40 * (i + 1) says which."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.uint8)
    y, x = np.mgrid[:height, :width]
    boxes, masks = [], []
    for _ in range(count * 4):
        r = rng.uniform(6, 0.15 * min(height, width))
        distance = np.hypot(x - rng.uniform(0, width), y - rng.uniform(0, height))
        disc = distance < r
        # Room between the discs: where two colours blend into each other, the picture no longer says who is who.
        if len(boxes) == count or disc.sum() < 30 or image[distance < r + 3].any():
            continue
        image[disc] = (40 * (len(boxes) + 1), 255, 0)
        rows, cols = np.flatnonzero(disc.any(1)), np.flatnonzero(disc.any(0))
        top, bottom, left, right = rows[0], rows[-1] + 1, cols[0], cols[-1] + 1
        boxes.append([left, top, right, bottom])
        masks.append(RoiMask(int(left), int(top), disc[top:bottom, left:right].astype(np.uint8)))
    return Sample(image, np.array(boxes, np.float32), np.arange(len(boxes)), masks, [], 7, (height, width))


def assert_aligned(sample: Sample, tolerance: float) -> None:
    """Every mask lies where its colour lies, and every box is its mask's box."""
    red, green = sample.image[..., 0].astype(float), sample.image[..., 1].astype(float)
    who = np.round(255 * red / np.maximum(green, 1) / 40) - 1  # a blended edge keeps the ratio of its object
    for label, box, mask in zip(sample.labels, sample.boxes, sample.masks, strict=True):
        drawn = mask.full(*red.shape).astype(bool)
        colour = (green >= 128) & (who == label)  # the grey of the padding is 114
        union = (drawn | colour).sum()
        assert (drawn & colour).sum() / union > 1 - tolerance / np.sqrt(union), (label, union)
        np.testing.assert_array_equal(box, [mask.x, mask.y, mask.x + mask.bits.shape[1], mask.y + mask.bits.shape[0]])


@settings(max_examples=25, deadline=None)
@given(st.integers(40, 300), st.integers(40, 300), st.integers(0, 10_000))
def test_everything_stays_aligned(height: int, width: int, seed: int) -> None:
    config = PLAIN.model_copy(update={"scale_min": 0.9, "scale_max": 2.0})
    piece = augment(painted(height, width, seed), 256, 128, config, np.random.default_rng(seed))
    assert piece.image.shape == (128, 128, 3) and piece.image.dtype == np.uint8
    assert (piece.boxes >= 0).all() and (piece.boxes <= 128).all()
    assert_aligned(piece, tolerance=2.0)


def test_the_identity_window_changes_nothing() -> None:
    sample = painted(96, 96, 1)
    same = cut(sample, Window(0, 0, 96, 96, 96, 96), 96)
    np.testing.assert_array_equal(same.image, sample.image)
    np.testing.assert_array_equal(same.boxes, sample.boxes)
    for ours, theirs in zip(same.masks, sample.masks, strict=True):
        np.testing.assert_array_equal(ours.full(96, 96), theirs.full(96, 96))


@pytest.mark.parametrize("change", [flip_horizontal, transpose])
def test_flips_are_their_own_inverse(change) -> None:
    sample = painted(60, 90, 2)
    twice = change(change(sample))
    np.testing.assert_array_equal(twice.image, sample.image)
    np.testing.assert_array_equal(twice.boxes, sample.boxes)
    assert_aligned(change(sample), tolerance=0.01)


def test_an_object_outside_the_window_is_dropped_with_its_label_and_mask() -> None:
    sample = painted(128, 128, 3)
    left, top, right, bottom = (int(v) for v in sample.boxes[0])
    piece = cut(sample, Window(left, top, right, bottom, right - left, bottom - top), 128)
    assert 0 in piece.labels and len(piece.labels) < len(sample.labels)
    assert_aligned(piece, tolerance=0.5)


def test_a_box_without_a_mask_survives_as_a_box() -> None:
    sample = Sample(
        np.zeros((64, 64, 3), np.uint8), np.array([[8, 8, 24, 40]], np.float32), np.array([0]), [None], [], 1, (64, 64)
    )
    piece = cut(sample, Window(0, 0, 64, 64, 128, 128), 128)
    np.testing.assert_allclose(piece.boxes, [[16, 16, 48, 80]])
    assert piece.masks == [None]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 1000))
def test_windows_lie_in_the_image_and_fit_the_crop(height: int, width: int, seed: int) -> None:
    window = random_window((height, width), 512, 256, AugmentConfig(), np.random.default_rng(seed))
    assert 0 <= window.left < window.right <= width and 0 <= window.top < window.bottom <= height
    assert 1 <= window.width <= 256 and 1 <= window.height <= 256


def test_light_moves_pixels_but_not_geometry() -> None:
    sample = painted(64, 64, 4)
    lit = relight(sample, AugmentConfig(brightness=0.5, contrast=0.5), np.random.default_rng(0))
    assert (lit.image != sample.image).any()
    assert lit.boxes is sample.boxes and lit.masks is sample.masks
