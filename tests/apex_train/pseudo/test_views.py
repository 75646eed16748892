"""Views: what is found in one comes back onto the pixels that it was found on; held against whole pictures turned by NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from made_detections import made

from apex_runtime.detections import Detections
from apex_runtime.errors import UsageError
from apex_runtime.postprocess.letterbox import Letterbox
from apex_train.pseudo.views import View, parse_views

HEIGHT, WIDTH = 100, 100
ROWS = [(0.9, (10, 20, 34, 50), 0), (0.8, (60, 5, 99, 31), 1)]
TURNS = {
    "flip-x": lambda picture: picture[:, ::-1],
    "flip-y": lambda picture: picture[::-1],
    "flip-xy": lambda picture: picture[::-1, ::-1],
    "scale-0.5": lambda picture: picture,
}


def painted(found: Detections) -> np.ndarray:
    picture = np.zeros((len(found), HEIGHT, WIDTH), np.uint8)
    for canvas, mask in zip(picture, found.masks, strict=True):
        mask.place_on(canvas)
    return picture


@pytest.mark.parametrize("name", TURNS)
def test_masks_and_boxes_come_back(name: str) -> None:
    (view,) = parse_views([name])
    seen = made(ROWS)
    back = view.back(seen, HEIGHT, WIDTH)
    for mask, before, box in zip(painted(back), painted(seen), back.boxes, strict=True):
        np.testing.assert_array_equal(mask, TURNS[name](before))
        rows, cols = np.nonzero(mask)
        assert box[0] <= cols.min() and cols.max() < box[2] and box[1] <= rows.min() and rows.max() < box[3]
    assert back.scores.tolist() == seen.scores.tolist() and back.labels.tolist() == seen.labels.tolist()


def test_what_the_model_is_shown() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    np.testing.assert_array_equal(View("flip-xy", True, True).of(image), image[::-1, ::-1])
    small = View("scale-0.5", scale=0.5).of(image)
    assert small.shape == (80, 120, 3)
    np.testing.assert_array_equal(small[:40, :60], image)
    assert (small[40:] == 114).all() and (small[:, 60:] == 114).all()


def test_what_lies_beyond_the_rim_is_cut() -> None:
    seen = made([(0.9, (90, 90, 110, 110), 0), (0.8, (101, 10, 120, 20), 0)])
    (view,) = parse_views(["scale-0.5"])
    back = view.back(seen, HEIGHT, WIDTH)
    assert back.boxes.tolist() == [[90, 90, 100, 100]] and back.letterbox == Letterbox(100, 100, 100, 100)
    assert painted(back)[0, 90:, 90:].all() and painted(back).sum() == 100


@pytest.mark.parametrize(
    "names", [["flip"], ["scale-1"], ["scale-x"], ["scale-0.1"], ["scale-nan"], ["none", "flip-x"], ["flip-x"] * 2]
)
def test_no_such_view(names: list[str]) -> None:
    with pytest.raises(UsageError, match="--views"):
        parse_views(names)
    assert parse_views(["none"]) == ()
