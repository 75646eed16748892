import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.postprocess import rle
from apex_runtime.postprocess.rle import compress_counts, counts_to_roi, decompress_counts, rle_to_roi, roi_to_rle, rois_to_rles


@st.composite
def windows(draw: st.DrawFn) -> tuple[RoiMask, int, int]:
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    rows, cols = draw(st.integers(1, height)), draw(st.integers(1, width))
    y, x = draw(st.integers(0, height - rows)), draw(st.integers(0, width - cols))
    density = draw(st.sampled_from([0.0, 0.2, 0.8, 1.0]))
    bits = np.random.default_rng(draw(st.integers(0, 10_000))).random((rows, cols)) < density
    return RoiMask(x, y, bits.astype(np.uint8)), height, width


@settings(deadline=None, max_examples=200)
@given(windows())
def test_equals_pycocotools_on_the_full_mask(case: tuple[RoiMask, int, int]) -> None:
    mask, height, width = case
    full = mask.full(height, width)
    expected = coco_mask.encode(np.asfortranarray(full))
    assert roi_to_rle(mask, height, width) == {"size": [height, width], "counts": expected["counts"].decode()}
    back = rle_to_roi(roi_to_rle(mask, height, width))
    if back is None:
        assert not full.any()
    else:
        np.testing.assert_array_equal(back.full(height, width), full)
        edges = (back.bits[0], back.bits[-1], back.bits[:, 0], back.bits[:, -1])
        assert all(edge.any() for edge in edges), "cut to its box"


@settings(deadline=None, max_examples=100)
@given(
    st.integers(1, 30), st.integers(1, 30), st.lists(st.sampled_from([0.0, 0.3, 0.9, 1.0]), max_size=8), st.integers(0, 10_000)
)
def test_many_at_once_are_those_of_pycocotools(height: int, width: int, densities: list[float], seed: int) -> None:
    generator = np.random.default_rng(seed)
    masks = []
    for density in densities:
        rows, cols = generator.integers(1, height + 1), generator.integers(1, width + 1)
        x, y = generator.integers(0, width - cols + 1), generator.integers(0, height - rows + 1)
        masks.append(RoiMask(int(x), int(y), (generator.random((rows, cols)) < density).astype(np.uint8)))
    expected = [coco_mask.encode(np.asfortranarray(mask.full(height, width)))["counts"].decode() for mask in masks]
    for together in (1 << 22, 40):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rle, "_TOGETHER", together)
            assert [found["counts"] for found in rois_to_rles(masks, height, width)] == expected


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_windows_without_pixels_among_others_are_empty_masks(shape: tuple[int, int]) -> None:
    empty, full = RoiMask(1, 1, np.zeros(shape, np.uint8)), RoiMask(1, 1, np.ones((2, 2), np.uint8))
    for masks in ([empty], [empty, full], [full, empty], [full, empty, full]):
        expected = [coco_mask.encode(np.asfortranarray(mask.full(5, 6)))["counts"].decode() for mask in masks]
        assert [found["counts"] for found in rois_to_rles(masks, 5, 6)] == expected


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=12))
def test_compression_comes_back_for_large_counts(counts: list[int]) -> None:
    np.testing.assert_array_equal(decompress_counts(compress_counts(np.array(counts))), counts)


def test_uncompressed_counts_and_bytes() -> None:
    bits = np.array([[0, 1], [1, 1]], np.uint8)
    mask = rle_to_roi({"size": [2, 2], "counts": [1, 3]})
    assert mask is not None
    np.testing.assert_array_equal(mask.full(2, 2), bits)
    encoded = coco_mask.encode(np.asfortranarray(bits))
    again = rle_to_roi(encoded)
    assert again is not None and again.area == 3


@pytest.mark.parametrize("text", ["\x7f", "0p", " ", "ooooooooo0"])
def test_nonsense_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="run length"):
        decompress_counts(text)


@pytest.mark.parametrize(("counts", "reason"), [([1, 2], "cover 3"), ([-1, 5], "negative"), ([], "cover 0")])
def test_counts_that_do_not_fit_are_refused(counts: list[int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        counts_to_roi(np.array(counts, np.int64), 2, 2)


def test_a_window_outside_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves"):
        roi_to_rle(RoiMask(3, 0, np.ones((2, 2), np.uint8)), 4, 4)
