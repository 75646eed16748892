"""The chain of augmentations: every number of its configuration is read, and light leaves geometry alone."""

from __future__ import annotations

import numpy as np
import pytest

from apex_runtime.data.roi_mask import RoiMask
from apex_train.config import AugmentConfig
from apex_train.data.augment import augment
from apex_train.data.colour import colour_matrix, light_table, relight
from apex_train.data.sample import Sample

OFF = {name: 0 for name in ("flip_horizontal", "flip_vertical", "transpose", "brightness", "contrast", "keep_visible")}
STILL = AugmentConfig(**OFF, scale_min=1, scale_max=1)
AFFINE = {"affine": 1, "rotate": 0, "shear": 0, "translate": 0, "stretch": 1}
# field -> (values of the others, value off, value on)
FIELDS = {
    "scale_min": ({"scale_max": 2}, 1, 0.25),
    "scale_max": ({}, 1, 4),
    "flip_horizontal": ({}, 0, 1),
    "flip_vertical": ({}, 0, 1),
    "transpose": ({}, 0, 1),
    "affine": ({}, 0, 1),
    "rotate": (AFFINE, 0, 90),
    "shear": (AFFINE, 0, 30),
    "translate": (AFFINE, 0, 0.4),
    "stretch": (AFFINE, 1, 2),
    "mosaic": ({}, 0, 1),
    "copy_paste": ({}, 0, 1),
    "copy_paste_objects": ({"copy_paste": 1}, 1, 8),
    "brightness": ({}, 0, 0.5),
    "contrast": ({}, 0, 0.5),
    "saturation": ({}, 0, 0.5),
    "hue": ({}, 0, 90),
    "gamma": ({}, 0, 1),
    "keep_visible": ({}, 0, 1),
}
LIGHT = ("brightness", "contrast", "saturation", "hue", "gamma")


def pictures(count: int = 5) -> list[Sample]:
    """Pictures of noise with squares all over."""
    rng = np.random.default_rng(0)
    samples = []
    for i in range(count):
        corners = rng.integers(0, 80, (12, 2))
        masks = [RoiMask(int(x), int(y), np.ones((14, 10), np.uint8)) for x, y in corners]
        boxes = np.array([[x, y, x + 10, y + 14] for x, y in corners], np.float32)
        image = rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)
        samples.append(Sample(image, boxes, np.full(12, i), masks, [], i, (96, 96)))
    return samples


def run(config: AugmentConfig, seed: int = 0) -> Sample:
    return augment(pictures(), 1, (96, 96), (64, 64), config, np.random.default_rng(seed))


def same(a: Sample, b: Sample) -> bool:
    return np.array_equal(a.image, b.image) and np.array_equal(a.boxes, b.boxes) and np.array_equal(a.labels, b.labels)


def test_every_field_is_listed() -> None:
    assert set(FIELDS) == set(AugmentConfig.model_fields)
    assert all(field.description for field in AugmentConfig.model_fields.values())


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_is_read(field: str) -> None:
    others, off, on = FIELDS[field]
    without, with_it = (STILL.model_copy(update={**others, field: value}) for value in (off, on))
    pairs = [(run(without, seed), run(with_it, seed)) for seed in range(3)]
    assert any(not same(a, b) for a, b in pairs)
    if field in LIGHT:
        assert all(np.array_equal(a.boxes, b.boxes) and (a.image != b.image).any() for a, b in pairs)


def test_all_off_is_a_crop() -> None:
    piece, source = run(STILL), pictures()[1].image
    windows = np.lib.stride_tricks.sliding_window_view(source, (64, 64, 3))[:, :, 0]
    assert (windows == piece.image).all((2, 3, 4)).any()


def test_a_mosaic_shows_four_pictures() -> None:
    piece = run(STILL.model_copy(update={"mosaic": 1}))
    assert len(set(piece.labels.tolist())) == 4 and piece.labels[0] == 1 and piece.image_id == 1
    assert (piece.image[:19, :19] != 114).any() and piece.image.shape == (64, 64, 3)


@pytest.mark.parametrize("count", [1, 2])
def test_a_small_set_is_its_own_partner(count: int) -> None:
    config = AugmentConfig(mosaic=1, copy_paste=1)
    piece = augment(pictures(count), 0, (96, 96), (64, 64), config, np.random.default_rng(0))
    assert piece.image.shape == (64, 64, 3) and len(piece.labels)


def test_no_light_no_change() -> None:
    image = pictures(1)[0].image
    np.testing.assert_array_equal(relight(image, STILL, np.random.default_rng(0)), image)


def test_grey_stays_grey() -> None:
    grey = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2)
    config = AugmentConfig(hue=180, saturation=1, gamma=1, contrast=0.5, brightness=0.5)
    for seed in range(20):
        lit = relight(grey, config, np.random.default_rng(seed)).astype(int)
        assert np.ptp(lit, axis=2).max() <= 2  # rounding, enlarged by the table


def test_a_third_of_the_circle_exchanges_the_colours() -> None:
    np.testing.assert_allclose(colour_matrix(2 * np.pi / 3, 1) @ [1, 0, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(colour_matrix(0, 0) @ [0.2, 0.5, 0.9], [0.2 * 0.299 + 0.5 * 0.587 + 0.9 * 0.114] * 3, atol=1e-12)


def test_the_light_table() -> None:
    values = np.arange(256)
    np.testing.assert_array_equal(light_table(1, 1, 0), values)
    np.testing.assert_array_equal(light_table(1, 1, 0.2), np.clip(values + 51, 0, 255))
    np.testing.assert_allclose(light_table(1, 1.2, 0), np.clip((values - 127.5) * 1.2 + 127.5, 0, 255), atol=0.51)
    np.testing.assert_allclose(light_table(2, 1, 0), values**2 / 255, atol=0.51)


def odd_picture(rng: np.random.Generator) -> Sample:
    """A picture of any shape, a single row included, with full, thin, empty and missing masks."""
    height, width = (int(side) for side in rng.choice([1, 2, 3, 17, 64, 100, 400], 2))
    boxes, masks = [], []
    for _ in range(int(rng.integers(0, 6))):
        w, h = int(rng.integers(1, width + 1)), int(rng.integers(1, height + 1))
        x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        boxes.append([x, y, x + w, y + h])
        bits = (rng.random((h, w)) < rng.choice([0, 0.1, 0.9, 1])).astype(np.uint8)
        masks.append(RoiMask(x, y, bits) if rng.random() < 0.7 else None)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    regions = [mask for mask in masks if mask is not None][:1]
    return Sample(
        image, np.array(boxes, np.float32).reshape(-1, 4), np.zeros(len(boxes), np.int64), masks, regions, 1, (height, width)
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("keep", [0, 0.3, 1])
def test_any_picture_under_the_widest_ranges_gives_a_sound_sample(keep: float) -> None:
    widest = {
        "rotate": 180,
        "shear": 45,
        "translate": 0.5,
        "stretch": 4,
        "scale_min": 0.05,
        "scale_max": 8,
        "hue": 180,
        "gamma": 2,
    }
    config = AugmentConfig(**widest, affine=0.5, mosaic=0.4, copy_paste=0.5, saturation=1, keep_visible=keep)
    rng, objects = np.random.default_rng(0), 0
    for seed in range(80):
        chosen = [odd_picture(rng) for _ in range(int(rng.integers(1, 7)))]
        piece = augment(chosen, 0, (128, 128), (64, 64), config, np.random.default_rng(seed))
        assert piece.image.shape == (64, 64, 3) and piece.image.dtype == np.uint8
        assert piece.boxes.dtype == np.float32 and piece.labels.dtype == np.int64
        assert (piece.boxes >= 0).all() and (piece.boxes <= 64).all() and (piece.boxes[:, 2:] - piece.boxes[:, :2] >= 2).all()
        for mask in [*piece.masks, *piece.ignore]:
            assert mask is None or (mask.bits.dtype == bool and mask.area == mask.full(64, 64).sum() > 0)
        objects += len(piece.labels)
    assert objects > 20
