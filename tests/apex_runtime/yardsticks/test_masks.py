"""Masks of both kinds against bilinear interpolation in float64, by SciPy, wherever the image lies in the input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from apex_runtime.yardsticks.decode import candidates_of, places_of
from apex_runtime.yardsticks.description import Description
from apex_runtime.yardsticks.masks import has_masks, masks_of, reaches
from apex_runtime.yardsticks.placement import Placement

SIZE = (64, 96)
CLEAR = 1e-4  # logits nearer to 0 may differ in their sign in float32
BASE: dict[str, Any] = {"form": "separate", "boxes": "b", "scores": "s", "score": "probability", "box": "xyxy", "unit": "pixels"}


def logits_of(cells: np.ndarray, placement: Placement) -> np.ndarray:
    """float64 [h,w] of the image: between cells whose grid covers the input, pixel centres at +0.5 in both frames."""
    at = []
    for axis, length in enumerate((placement.source_height, placement.source_width)):
        step = (placement.height, placement.width)[axis] / cells.shape[axis]
        inside = (np.arange(length) + 0.5) * placement.content[axis] / length + placement.offset[axis]
        at.append(inside / step - 0.5)
    return map_coordinates(cells.astype(np.float64), np.meshgrid(*at, indexing="ij"), order=1, mode="nearest")


def in_box(box: np.ndarray, placement: Placement) -> np.ndarray:
    """bool [h,w]: the pixels of the image whose centre lies in a box of the input."""
    sides = []
    for axis, length in enumerate((placement.source_height, placement.source_width)):
        inside = (np.arange(length) + 0.5) * placement.content[axis] / length + placement.offset[axis]
        sides.append((inside >= box[1 - axis]) & (inside < box[3 - axis]))
    return np.outer(*sides)


def made(how: dict[str, Any], outputs: dict[str, np.ndarray], placement: Placement):
    wanted = Description.model_validate({"title": "t", "model": "m.onnx", "classes": ["a"], "outputs": BASE | how})
    places = places_of(outputs, wanted)
    kept = candidates_of(places, wanted, SIZE, 0.1)
    return kept, masks_of(kept, places, outputs, wanted, placement)


def drawn(seed: int, cells: tuple[int, int]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, 1, (4, 2, 2)), axis=1) * SIZE[::-1]
    return {
        "b": corners.reshape(4, 4).astype(np.float32),
        "s": rng.uniform(0.2, 1, (4, 1)).astype(np.float32),
        "c": rng.normal(size=(4, 3)).astype(np.float32),
        "p": rng.normal(size=(3, *cells)).astype(np.float32),
        "m": rng.normal(-0.5, 1, (4, *cells)).astype(np.float32),
    }


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    cells=st.sampled_from([(16, 24), (8, 12), (20, 20)]),  # strides 4, 8, and one that is not whole
    stretched=st.booleans(),
    centred=st.booleans(),
    kind=st.sampled_from(["prototypes", "masks"]),
    cut=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_is_the_interpolation_of_the_logits(shape, cells, stretched, centred, kind, cut, seed) -> None:
    placement = Placement(*shape, *SIZE, stretched, centred and not stretched)
    outputs = drawn(seed, cells)
    names = {"prototypes": "p", "coefficients": "c"} if kind == "prototypes" else {"masks": "m", "mask_threshold": 0.25}
    kept, masks = made(names | {"cut_masks": cut}, outputs, placement)
    assert len(masks) == 4
    for mask, place, box in zip(masks, kept.places, kept.boxes, strict=True):
        cells_hw = np.tensordot(outputs["c"].astype(float), outputs["p"].astype(float), 1)[place]
        logits = logits_of(cells_hw if kind == "prototypes" else outputs["m"][place].astype(float) - 0.25, placement)
        wanted = (logits > 0) & in_box(box, placement) if cut else logits > 0
        sure = np.abs(logits) > CLEAR
        thin = 1 in mask.bits.shape  # of a box too thin for any pixel the nearest one is kept
        assert thin or np.array_equal(mask.full(*shape)[sure].astype(bool), wanted[sure])


def test_a_mask_that_is_not_cut_costs_its_own_pixels() -> None:
    logits = np.full((2, 16, 24), -1.0)
    logits[0, 3:5, 6:9] = 1.0
    np.testing.assert_array_equal(reaches(logits, *SIZE), [[22, 10, 38, 22], [0, 0, 0, 0]])
    logits[0, 0, 23] = 1.0
    np.testing.assert_array_equal(reaches(logits[:1], *SIZE), [[22, 0, 96, 22]])


def test_a_detector_without_masks_gives_empty_ones() -> None:
    kept, masks = made({}, drawn(0, (16, 24)), Placement(30, 40, *SIZE))
    assert len(masks) == len(kept.scores) == 4 and not any(mask.area for mask in masks)


@pytest.mark.parametrize(("how", "has"), [({}, False), ({"masks": "m"}, True), ({"prototypes": "p", "coefficients": "c"}, True)])
def test_whether_there_are_masks(how: dict[str, Any], has: bool) -> None:
    wanted = Description.model_validate({"title": "t", "model": "m.onnx", "classes": ["a"], "outputs": BASE | how})
    assert has_masks(wanted) == has
