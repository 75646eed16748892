import gc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from apex_runtime.postprocess import masks as module
from apex_runtime.postprocess.letterbox import Letterbox
from apex_runtime.postprocess.masks import LazyMasks, assemble_masks


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


def some_masks(seed: int = 0, count: int = 6) -> LazyMasks:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 40, (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(1, 24, (count, 2))], axis=1)
    return assemble_masks(rng.normal(size=(count, 3)), rng.normal(size=(3, 16, 16)), boxes, Letterbox(90, 100, 64, 64))


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
    assert len(assemble_masks(np.zeros((0, 4)), np.zeros((4, 8, 8)), np.zeros((0, 4)), Letterbox(32, 32, 32, 32))) == 0


def test_a_disc_keeps_its_place_and_area_at_twice_the_size() -> None:
    """A disc drawn in prototype cells lands on the same disc in a source image of twice the input size."""
    y, x = np.mgrid[:64, :64] + 0.5
    prototype = (10 - np.hypot(x - 30, y - 20)).astype(np.float32)[None]
    (mask,) = assemble_masks(np.ones((1, 1)), prototype, np.array([[0, 0, 256, 256]]), Letterbox(512, 512, 256, 256))
    y, x = np.mgrid[:512, :512] + 0.5
    expected = np.hypot(x - 240, y - 160) < 80
    assert np.count_nonzero(mask.full(512, 512) != expected) < 0.01 * expected.sum()


@settings(deadline=None, max_examples=30)
@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    grid=st.tuples(st.sampled_from([32, 64, 96]), st.sampled_from([32, 64, 96])),
    square=st.sampled_from([1, 7, 64, 256]),
    seed=st.integers(0, 10_000),
)
def test_large_windows_made_piece_by_piece_equal_float64_interpolation(
    size: tuple[int, int], grid: tuple[int, int], square: int, seed: int
) -> None:
    """SciPy interpolates each pixel on its own, in float64, over the whole image; ties are left out."""
    rng = np.random.default_rng(seed)
    letterbox = Letterbox(*size, *grid)
    coefficients = rng.normal(size=(2, 3)).astype(np.float32)
    prototypes = rng.normal(size=(3, grid[0] // 4, grid[1] // 4)).astype(np.float32)
    low = rng.uniform(0, 0.5, (2, 2))
    boxes = (np.concatenate([low, low + rng.uniform(0.1, 1, (2, 2))], axis=1) * np.array([grid[1], grid[0]] * 2)).astype(
        np.float32
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SQUARE", square)
        masks = list(assemble_masks(coefficients, prototypes, boxes, letterbox))
    y, x = (((np.arange(n) + 0.5) * scale / 4 - 0.5) for n, scale in zip(size, letterbox.scales, strict=True))
    for mask, coefficient in zip(masks, coefficients.astype(np.float64), strict=True):
        logits = np.tensordot(coefficient, prototypes.astype(np.float64), 1)
        expected = map_coordinates(logits, np.meshgrid(y, x, indexing="ij"), order=1, mode="nearest")
        window = expected[mask.y : mask.y + mask.bits.shape[0], mask.x : mask.x + mask.bits.shape[1]]
        clear = np.abs(window) > 1e-4
        assert clear.mean() > 0.9 or clear.size < 50
        np.testing.assert_array_equal(mask.bits[clear], window[clear] > 0)


def test_the_order_of_asking_changes_nothing() -> None:
    forwards, backwards, twice = some_masks(), some_masks(), some_masks()
    expected = [mask.bits for mask in forwards]
    assert len({mask.bits.tobytes() for mask in forwards}) == len(forwards), "masks that are all alike would prove nothing"
    for index in range(len(backwards) - 1, -1, -1):
        np.testing.assert_array_equal(backwards[index].bits, expected[index])
    assert twice[2] is twice[2], "what was assembled is kept"
    np.testing.assert_array_equal(twice[2].bits, expected[2])


def test_it_is_a_sequence() -> None:
    masks, listed = some_masks(), list(some_masks())
    part = masks[1:4]
    assert isinstance(part, LazyMasks) and len(part) == 3
    for mask, other in zip(part, listed[1:4], strict=True):
        np.testing.assert_array_equal(mask.bits, other.bits)
    np.testing.assert_array_equal(masks[-1].bits, listed[-1].bits)
    np.testing.assert_array_equal(masks[np.int64(2)].bits, listed[2].bits)
    with pytest.raises(IndexError):
        masks[len(masks)]


def test_the_prototypes_are_let_go_before_any_mask_is_asked_for() -> None:
    prototypes = np.random.default_rng(0).normal(size=(3, 16, 16)).astype(np.float32)
    gone = weakref.ref(prototypes)
    masks = assemble_masks(np.ones((2, 3)), prototypes, np.array([[0, 0, 8, 8], [4, 4, 60, 60]]), Letterbox(64, 64, 64, 64))
    del prototypes
    gc.collect()
    assert gone() is None and masks[1].bits.size == 56 * 56
