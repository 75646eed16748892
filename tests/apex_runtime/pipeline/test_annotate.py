"""The annotated picture shows what it should, where it should, at a legible size."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.pipeline import annotate
from apex_runtime.pipeline.annotate import MIN_SIDE, Picture, draw, write_png

ALL = (0.0, 0.0, 1e9, 1e9)


@pytest.fixture(autouse=True)
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of thousands of pixels would only cost time here."""
    monkeypatch.setattr(annotate, "MAX_SIDE", 1000)


def grey(height: int, width: int, value: int = 120) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (256, 320), (700, 900), (1500, 1100), (1, 1), (1, 3000), (9000, 2)])
def test_pictures_are_legible_and_bounded(height: int, width: int) -> None:
    picture = Picture.of(grey(height, width))
    longest = max(picture.canvas.shape[:2])
    assert MIN_SIDE <= longest <= 1000
    assert max(height, width) > 1000 or longest % max(height, width) == 0, "small images grow by a whole factor"
    drawn = draw(picture, [], [(0, 0, width, height)], "one line of text that is rather long for a narrow picture")
    assert drawn.dtype == np.uint8 and drawn.shape[1] == picture.canvas.shape[1]
    assert drawn.shape[0] > picture.canvas.shape[0], "the legend is below the picture, not on it"
    np.testing.assert_array_equal(drawn[: picture.canvas.shape[0]], picture.canvas)


@pytest.mark.parametrize(("height", "width"), [(240, 432), (300, 1600), (8, 8), (900, 200)])
def test_frames_of_a_clip_keep_their_size(height: int, width: int) -> None:
    drawn = draw(Picture(grey(height, width), 1.0, 1.0), [], [ALL], "looked closely at 10 of 40 tiles", keep_size=True)
    assert drawn.shape == (height, width, 3)
    rows = (drawn != 120).any(axis=(1, 2))
    assert rows.any() and (height < 50 or not rows[: height * 9 // 10].any()), "the legend lies on the lowest rows only"


@pytest.mark.parametrize("value", [0, 40, 80, 120, 255])
def test_the_tiles_that_were_looked_at_are_visible(value: int) -> None:
    """On black, grey and white images alike; inside the chosen tiles the pixels stay as they are."""
    picture = Picture.of(grey(640, 640, value))
    drawn = draw(picture, [], [(0, 0, 160, 160), (160, 0, 160, 160)], "")
    assert (drawn[20:140, 20:300] == value).all(), "seen tiles are not changed, no line between two of them"
    assert np.abs(drawn[400, 400].astype(int) - value).max() > 12, "the others are"
    edge = drawn[20:140, 310:330].astype(int).max(axis=2)
    assert (np.abs(edge - value).max(axis=1) > 20).all(), "a line separates them"


def test_the_input_is_not_drawn_on() -> None:
    image = grey(700, 700)
    picture = Picture.of(image)
    shape = picture.shape(np.array([100, 100, 300, 300.0]), RoiMask(100, 100, np.ones((200, 200), np.uint8)), "cell 0.90", 0)
    draw(picture, [shape], [ALL], "x")
    assert (image == 120).all() and (picture.canvas == 120).all()


@pytest.mark.parametrize("size", [100, 320, 640, 1500])
def test_masks_and_boxes_lie_where_they_belong(size: int) -> None:
    """A centred square mask in a larger box, in enlarged, equal and reduced pictures."""
    picture = Picture.of(grey(size, size))
    quarter, half = size // 4, size // 2
    mask = RoiMask(quarter, quarter, np.ones((half, half), np.uint8))
    box = np.array([quarter - size / 20, quarter - size / 20, quarter + half + size / 20, quarter + half + size / 20])
    drawn = draw(picture, [picture.shape(box, mask, "", 3)], [ALL], "")
    height = picture.canvas.shape[0]
    changed = (drawn[:height] != 120).any(axis=2)
    margin = height // 50
    start, stop = round(quarter * picture.scale_y), round((quarter + half) * picture.scale_y)
    assert changed[start + margin : stop - margin, start + margin : stop - margin].all()
    ring = round((size / 20) * picture.scale_y)
    outside = changed.copy()
    outside[start - ring - margin : stop + ring + margin, start - ring - margin : stop + ring + margin] = False
    assert not outside.any()
    between = changed[start + height // 10, start - ring + margin : start - margin]
    assert not between.any(), "between mask and box the picture shows through"


def test_neighbours_have_different_colours() -> None:
    picture = Picture.of(grey(700, 700))
    boxes = [np.array([100 * i + 10, 100, 100 * i + 90, 180.0]) for i in range(6)]
    shapes = [picture.shape(b, RoiMask(int(b[0]), 100, np.ones((80, 80), np.uint8)), "", i) for i, b in enumerate(boxes)]
    drawn = draw(picture, shapes, [ALL], "").astype(int)
    colours = [drawn[140, 100 * i + 50] for i in range(6)]
    for i in range(6):
        for j in range(i):
            assert np.abs(colours[i] - colours[j]).sum() > 30


@pytest.mark.parametrize("box", [(0, 0, 700, 700), (690, 690, 700, 700), (0, 0, 1, 1), (0, 690, 3, 700)])
def test_shapes_at_the_border(box: tuple[float, ...]) -> None:
    picture = Picture.of(grey(700, 700))
    x1, y1, x2, y2 = (int(value) for value in box)
    shape = picture.shape(np.array(box), RoiMask(x1, y1, np.ones((y2 - y1, x2 - x1), np.uint8)), "a long class name 0.99", 0)
    assert draw(picture, [shape, shape], [ALL], "x").shape[1] == 700


def test_an_empty_mask_is_only_a_box() -> None:
    picture = Picture.of(grey(700, 700))
    shape = picture.shape(np.array([100.0, 100, 200, 200]), RoiMask(100, 100, np.zeros((100, 100), np.uint8)), "", 0)
    drawn = draw(picture, [shape], [ALL], "")
    assert (drawn[110:190, 110:190] == 120).all() and (drawn[100, 100:199] != 120).any()


def test_png_is_written_in_one_step_with_its_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, :, 0] = 200
    path = tmp_path / "a" / "b.png"
    write_png(path, image)
    assert (cv2.imread(str(path))[:, :, ::-1] == image).all()

    def fail(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    before = path.read_bytes()
    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError):
        write_png(path, image + 1)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["b.png"]


def test_finer_tiles_have_a_line_of_their_own() -> None:
    picture = Picture.of(grey(640, 640))
    coarse = [(0, 0, 320, 320)]
    drawn = draw(picture, [], coarse, "", finer=[[(160, 160, 160, 160)]])
    plain = draw(picture, [], coarse, "")
    inside = np.zeros(drawn.shape[:2], bool)
    inside[150:330, 150:330] = True
    changed = (drawn != plain).any(axis=2)
    assert changed.any() and not changed[~inside].any()
    assert (drawn[170:310, 170:310] == 120).all(), "its pixels stay as they are"
    np.testing.assert_array_equal(draw(picture, [], coarse, "", finer=[[]]), plain)
