"""Joining what windows found: objects that are known, seen through windows that cut them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.data.scenes.windows import Window, windows
from apex_runtime.detections import Detections
from apex_runtime.postprocess.letterbox import Letterbox
from apex_runtime.windows.found import Found, found_in
from apex_runtime.windows.seams import DUPLICATE, join

HEIGHT, WIDTH = 300, 420


def _ellipse(x: int, y: int, wide: int, high: int) -> RoiMask:
    rows, cols = np.mgrid[:high, :wide]
    inside = ((cols + 0.5) / wide * 2 - 1) ** 2 + ((rows + 0.5) / high * 2 - 1) ** 2 <= 1
    return RoiMask(x, y, inside.astype(np.uint8))


def _seen(objects: Sequence[RoiMask], window: Window, scores: Sequence[float]) -> Found:
    """What a detector without faults answers for a window: every object it shows at least 12 pixels of, cut at its border."""
    boxes, masks, kept = [], [], []
    for mask, score in zip(objects, scores, strict=True):
        shown = RoiMask(mask.x - window.x, mask.y - window.y, mask.bits).full(window.height, window.width)
        rows, cols = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
        if shown.sum() >= 12:
            x1, y1, x2, y2 = cols[0], rows[0], cols[-1] + 1, rows[-1] + 1
            boxes.append((x1, y1, x2, y2))
            masks.append(RoiMask(int(x1), int(y1), shown[y1:y2, x1:x2]))
            kept.append(score)
    order = np.argsort(-np.array(kept), kind="stable")
    nothing = np.zeros(0, np.int64)
    return found_in(
        Detections(
            boxes=np.array(boxes, np.float32).reshape(-1, 4)[order],
            scores=np.array(kept, np.float32)[order],
            labels=np.zeros(len(kept), np.int64),
            category_ids=np.ones(len(kept), np.int64),
            masks=[masks[place] for place in order],
            tile_ids=nothing,
            tile_levels=nothing,
            n_content=1,
            letterbox=Letterbox(window.height, window.width, window.height, window.width),
        ),
        window,
        HEIGHT,
        WIDTH,
    )


@st.composite
def _objects(draw: st.DrawFn) -> list[RoiMask]:
    """Ellipses that do not touch each other, of 8 to 150 pixels a side."""
    taken = np.zeros((HEIGHT, WIDTH), bool)
    found = []
    for _ in range(draw(st.integers(1, 9))):
        wide, high = draw(st.integers(8, 150)), draw(st.integers(8, 150))
        x, y = draw(st.integers(0, WIDTH - wide)), draw(st.integers(0, HEIGHT - high))
        area = taken[max(0, y - 2) : y + high + 2, max(0, x - 2) : x + wide + 2]
        if not area.any():
            area[:] = True
            found.append(_ellipse(x, y, wide, high))
    return found


@settings(max_examples=60, deadline=None)
@given(_objects(), st.integers(0, 1 << 30))
def test_a_detector_without_faults_gives_every_object_once_and_whole(objects: list[RoiMask], seed: int) -> None:
    generator = np.random.default_rng(seed)
    cut = windows(HEIGHT, WIDTH, 160, 64)
    parts = [_seen(objects, window, generator.uniform(0.3, 1, len(objects))) for window in cut]
    found = join(parts, cut)
    assert len(found) == len(objects)
    canvases = [mask.unpack().full(HEIGHT, WIDTH) for mask in found.masks]
    for mask in objects:
        truth = mask.full(HEIGHT, WIDTH)
        assert max(float((truth & c).sum() / (truth | c).sum()) for c in canvases) > 0.97
    assert (np.diff(found.scores) <= 0).all() and not found.cut.any()


@settings(max_examples=30, deadline=None)
@given(_objects(), st.integers(0, 1 << 30))
def test_noisy_masks_leave_no_duplicates_across_a_seam(objects: list[RoiMask], seed: int) -> None:
    """Every window moves and resizes the objects a little, and finds some twice."""
    generator = np.random.default_rng(seed)
    cut = windows(HEIGHT, WIDTH, 160, 64)
    parts = []
    for window in cut:
        moved = [_shaken(mask, generator) for mask in objects for _ in range(1 + (generator.random() < 0.3))]
        parts.append(_seen(moved, window, generator.uniform(0.05, 1, len(moved))))
    found = join(parts, cut)
    canvases = [mask.unpack().full(HEIGHT, WIDTH) for mask in found.masks]
    shown = np.zeros((HEIGHT, WIDTH), np.uint8)
    for window in cut:
        shown[window.y : window.y + window.height, window.x : window.x + window.width] += 1
    for first in range(len(found)):
        for second in range(first):
            union = (canvases[first] | canvases[second]).sum()
            overlap = float((canvases[first] & canvases[second]).sum() / union)
            assert overlap <= DUPLICATE or not (shown * canvases[first] * canvases[second] > 1).any()


def _shaken(mask: RoiMask, generator: np.random.Generator) -> RoiMask:
    rows, cols = (max(6, side + int(generator.integers(-2, 3))) for side in mask.bits.shape)
    x, y = (max(0, place + int(generator.integers(-2, 3))) for place in (mask.x, mask.y))
    return _ellipse(min(x, WIDTH - cols), min(y, HEIGHT - rows), cols, rows)


def test_a_blob_of_one_window_does_not_take_two_objects_of_another_with_it() -> None:
    cut = windows(100, 240, (100, 160), 80)
    assert len(cut) == 2
    two = [_ellipse(100, 40, 14, 14), _ellipse(115, 40, 14, 14)]
    blob = RoiMask(100, 40, np.ones((14, 29), np.uint8))
    parts = [_seen(two, cut[0], [0.9, 0.6]), _seen([blob], cut[1], [0.8])]
    assert sorted(found.x for found in join(parts, cut).masks)[-1] == 115


def test_other_classes_are_other_objects() -> None:
    cut = windows(100, 240, (100, 160), 80)
    mask = [_ellipse(110, 40, 20, 20)]
    left, right = (_seen(mask, window, [0.9]) for window in cut)
    other = Found(right.boxes, right.scores, right.labels + 1, right.masks, right.cut)
    assert len(join([left, other], cut)) == 2 and len(join([left, right], cut)) == 1


def test_an_object_longer_than_any_window_is_joined_of_all_of_them() -> None:
    cut = windows(HEIGHT, WIDTH, 160, 64)
    long = _ellipse(5, 120, 410, 40)
    found = join([_seen([long], window, [0.5 + 0.01 * place]) for place, window in enumerate(cut)], cut)
    assert len(found) == 1 and found.masks[0].unpack().area == long.area
    assert found.boxes[0].tolist() == [5, 120, 415, 160]
