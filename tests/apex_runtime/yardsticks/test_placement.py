"""An image in the input of another project's graph, against the mapping written out in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apex_runtime.yardsticks.description import Input
from apex_runtime.yardsticks.placement import place_image

FLOAT = np.dtype("float32")


def mapping(shape: tuple[int, int], size: tuple[int, int], resize: str, align: str) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset, (y, x) each: what the words of docs/yardsticks.md mean."""
    h, w = shape
    if resize == "stretch":
        return np.array(size) / shape, np.zeros(2)
    fit = min(size[0] / h, size[1] / w)
    content = np.array([max(1, round(h * fit)), max(1, round(w * fit))])
    free = np.array(size) - content
    return content / shape, np.floor(free / 2) if align == "centre" else np.zeros(2)


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    size=st.tuples(st.integers(16, 128), st.integers(16, 128)),
    how=st.sampled_from([("letterbox", "centre"), ("letterbox", "top_left"), ("stretch", "centre")]),
    seed=st.integers(0, 1000),
)
def test_boxes_find_their_way_back(shape, size, how, seed) -> None:
    resize, align = how
    words = {"resize": resize} | ({} if resize == "stretch" else {"align": align})
    _, placement = place_image(np.zeros((*shape, 3), np.uint8), Input(**words), *size, FLOAT)
    scale, offset = mapping(shape, size, resize, align)
    corners = np.sort(np.random.default_rng(seed).uniform(0, 1, (5, 2, 2)), axis=1) * shape  # n, low and high, y x
    inside = (corners * scale + offset)[:, :, ::-1].reshape(5, 4)
    np.testing.assert_allclose(placement.boxes_to_source(inside), corners[:, :, ::-1].reshape(5, 4), atol=2e-3)
    beyond = placement.boxes_to_source(np.array([[-1e4, -1e4, 1e4, 1e4]]))
    np.testing.assert_array_equal(beyond, [[0, 0, shape[1], shape[0]]])


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    align=st.sampled_from(["centre", "top_left"]),
    layout=st.sampled_from(["nchw", "nhwc"]),
    channels=st.sampled_from(["rgb", "bgr"]),
)
def test_numbers_are_those_of_the_description(shape, align, layout, channels) -> None:
    colour, mean, std = (200, 100, 50), (0.5, 0.4, 0.3), (0.25, 0.5, 2.0)
    wanted = Input(align=align, layout=layout, channels=channels, pad=7, scale="1/255", mean=mean, std=std)
    image = np.full((*shape, 3), colour, np.uint8)
    pixels, placement = place_image(image, wanted, 48, 80, FLOAT)
    assert pixels.shape == ((3, 48, 80) if layout == "nchw" else (48, 80, 3)) and pixels.flags.c_contiguous
    found = pixels.transpose(1, 2, 0) if layout == "nchw" else pixels
    (top, left), (rows, cols) = placement.offset, placement.content
    shown = np.zeros((48, 80), bool)
    shown[top : top + rows, left : left + cols] = True
    order = colour if channels == "rgb" else colour[::-1]
    np.testing.assert_allclose(found[shown], [(np.array(order) / 255 - mean) / std] * shown.sum(), atol=1e-5)
    np.testing.assert_allclose(found[~shown], [(np.full(3, 7) / 255 - mean) / std] * (~shown).sum(), atol=1e-5)


def test_an_odd_row_of_padding_comes_last() -> None:
    pixels, placement = place_image(np.full((10, 21, 3), 255, np.uint8), Input(pad=0), 21, 21, FLOAT)
    assert placement.offset == (5, 0)
    assert pixels[0, :, 0].tolist() == pytest.approx([0] * 5 + [1] * 10 + [0] * 6)


def test_a_ramp_is_where_its_centres_say() -> None:
    """Linear interpolation between pixel centres; floats keep what rounding to whole numbers loses."""
    image = np.repeat(np.arange(0, 160, 4, dtype=np.uint8)[None, :, None], 8, axis=0).repeat(3, axis=2)
    where = (np.arange(24) + 0.5) * 40 / 24 - 0.5
    for rounded, atol in ((True, 0.51), (False, 1e-3)):
        wanted = Input(resize="stretch", rounded=rounded, scale=1)
        pixels, _ = place_image(image, wanted, 8, 24, FLOAT)
        np.testing.assert_allclose(pixels[0, 3], where * 4, atol=atol)
    assert np.abs(pixels[0, 3] - np.rint(pixels[0, 3])).max() > 0.2, "else this says nothing about rounding"


@pytest.mark.parametrize(("words", "same"), [({}, False), ({"interpolation": "area"}, True)])
def test_area_is_the_mean_where_an_image_is_reduced(words: dict[str, Any], same: bool) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    pixels, _ = place_image(image, Input(scale=1, **words), 16, 16, FLOAT)
    mean = image.reshape(16, 4, 16, 4, 3).mean((1, 3)).transpose(2, 0, 1)
    assert (np.abs(pixels - mean).max() < 0.51) == same


@pytest.mark.parametrize("name", ["uint8", "float16"])
def test_the_type_is_that_of_the_graph(name: str) -> None:
    image = np.full((8, 8, 3), 77, np.uint8)
    pixels, _ = place_image(image, Input(scale=1), 8, 8, np.dtype(name))
    assert pixels.dtype == name and (pixels == 77).all()
