import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apex_runtime.postprocess.letterbox import Letterbox
from apex_runtime.postprocess.masks import assemble_masks


def naive_logit(logits: np.ndarray, x: int, y: int, letterbox: Letterbox) -> float:
    """The definition, one pixel at a time: bilinear between the four cells around the pixel's centre, clamped at the border."""
    height, width = logits.shape
    rows, cols = letterbox.content
    v = (y + 0.5) * rows / letterbox.source_height / 4 - 0.5
    u = (x + 0.5) * cols / letterbox.source_width / 4 - 0.5
    value = 0.0
    for j in (int(np.floor(v)), int(np.floor(v)) + 1):
        for i in (int(np.floor(u)), int(np.floor(u)) + 1):
            weight = (1 - abs(v - j)) * (1 - abs(u - i))
            value += weight * logits[min(max(j, 0), height - 1), min(max(i, 0), width - 1)]
    return value


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 1000))
def test_equals_the_definition_inside_the_box_and_is_empty_outside(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    letterbox = Letterbox(height, width, 32, 48)
    coefficients = rng.normal(size=(3, 5)).astype(np.float32)
    prototypes = rng.normal(size=(5, 8, 12)).astype(np.float32)
    corners = rng.uniform(-8, 56, (3, 2, 2))
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1).astype(np.float32)
    masks = assemble_masks(coefficients, prototypes, boxes, letterbox)
    vertical, horizontal = letterbox.scales
    for mask, coefficient, box in zip(masks, coefficients, boxes, strict=True):
        assert mask.bits.size >= 1 and mask.bits.dtype == np.uint8
        assert mask.x >= 0 and mask.x + mask.bits.shape[1] <= width and mask.y >= 0 and mask.y + mask.bits.shape[0] <= height
        logits = np.tensordot(coefficient.astype(np.float64), prototypes, 1)
        full = mask.full(height, width)
        for y in range(height):
            for x in range(width):
                inside = box[0] <= (x + 0.5) * horizontal < box[2] and box[1] <= (y + 0.5) * vertical < box[3]
                thin = mask.bits.shape[0] == 1 or mask.bits.shape[1] == 1
                logit = naive_logit(logits, x, y, letterbox)
                if inside and abs(logit) > 1e-4:
                    assert full[y, x] == (logit > 0)
                elif not inside and not thin:
                    assert full[y, x] == 0


@pytest.mark.parametrize("box", [(10, 10, 10, 10), (64, 64, 64, 64), (0, 0, 0, 64), (20.1, 20.1, 20.2, 20.2), (90, 90, 99, 99)])
def test_a_box_without_pixels_gives_one_pixel_wide_window(box: tuple[float, ...]) -> None:
    (mask,) = assemble_masks(
        np.ones((1, 1), np.float32), np.ones((1, 16, 16), np.float32), np.array([box], np.float32), Letterbox(64, 64, 64, 64)
    )
    assert min(mask.bits.shape) == 1 and mask.bits.all()
    assert mask.full(64, 64).sum() == mask.bits.size


def test_no_detections() -> None:
    assert assemble_masks(np.zeros((0, 4)), np.zeros((4, 8, 8)), np.zeros((0, 4)), Letterbox(32, 32, 32, 32)) == []


def test_a_disc_keeps_its_place_and_area_at_twice_the_size() -> None:
    """A disc drawn in prototype cells lands on the same disc in a source image of twice the input size."""
    y, x = np.mgrid[:64, :64] + 0.5
    prototype = (10 - np.hypot(x - 30, y - 20)).astype(np.float32)[None]
    (mask,) = assemble_masks(np.ones((1, 1)), prototype, np.array([[0, 0, 256, 256]]), Letterbox(512, 512, 256, 256))
    y, x = np.mgrid[:512, :512] + 0.5
    expected = np.hypot(x - 240, y - 160) < 80
    assert np.count_nonzero(mask.full(512, 512) != expected) < 0.01 * expected.sum()
