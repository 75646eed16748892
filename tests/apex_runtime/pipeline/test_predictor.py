"""The predictor finds what is there, in the image's own pixels, and a batch changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import discs

from apex_runtime.backends.ort import OrtSession
from apex_runtime.errors import BackendError, ImageError, UsageError
from apex_runtime.pipeline import predictor as module
from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.routing.budget import parse_budget


@pytest.fixture(scope="module")
def predictor(tiny_onnx: Path) -> Predictor:
    return Predictor(OrtSession(tiny_onnx, threads=1))


def box_iou(a: np.ndarray, b: tuple[float, ...]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (area - width * height)


@pytest.mark.parametrize(("height", "width", "scale"), [(128, 128, 1), (64, 64, 0.5), (256, 512, 4), (512, 128, 4)])
def test_a_disc_is_found_where_it_is(predictor: Predictor, height: int, width: int, scale: float) -> None:
    """Image sizes that are enlarged, kept and reduced; the disc lies inside one tile of the input."""
    x, y, radius = round(16 * scale), round(48 * scale), round(11 * scale)
    found = predictor.predict([discs(height, width, (x, y, radius))], 1.0)[0]
    assert found.scores[0] > 0.9 and (found.scores > 0.5).sum() == 1
    assert box_iou(found.boxes[0], (x - radius, y - radius, x + radius, y + radius)) > 0.7
    mask = found.masks[0].full(height, width)
    truth = discs(height, width, (x, y, radius))[:, :, 0] > 0
    assert (mask.astype(bool) & truth).sum() / (mask.astype(bool) | truth).sum() > 0.65  # a prototype cell is 4 pixels
    assert found.category_ids[0] == 10


def test_the_budget_decides_where_the_model_looks(predictor: Predictor) -> None:
    image = discs(128, 128, (16, 16, 11), (112, 112, 11))
    for budget, tiles in ((1, 1), (2, 2), (0.25, 4), ("50%", 8), (1.0, 16), (400, 16)):
        found = predictor.predict([image], budget)[0]
        assert len(found.tile_ids) == tiles and found.n_content == 16
        if tiles >= 2:
            assert {0, 15} <= set(found.tile_ids.tolist())


def test_padding_is_never_looked_at(predictor: Predictor) -> None:
    found = predictor.predict([discs(32, 128, (16, 16, 11)), discs(128, 32, (16, 16, 11))], 1.0)
    assert found[0].tile_ids.tolist() == [0, 1, 2, 3]
    assert found[1].tile_ids.tolist() == [0, 4, 8, 12]


@settings(max_examples=8, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 200), st.integers(1, 200)), min_size=1, max_size=10),
    budget=st.sampled_from([1, 0.3, 1.0]),
)
def test_a_batch_equals_its_images_one_by_one(predictor: Predictor, sizes: list[tuple[int, int]], budget: float) -> None:
    """Images of different K in one call come back in their order; sums of a batch may differ in the last digits."""
    images = [discs(height, width, (width // 3, height // 3, min(height, width) // 5)) for height, width in sizes]
    together = predictor.predict(images, budget)
    assert len(together) == len(images)
    for image, found in zip(images, together, strict=True):
        alone = predictor.predict([image], budget)[0]
        assert (found.letterbox, found.n_content) == (alone.letterbox, alone.n_content)
        np.testing.assert_array_equal(found.tile_ids, alone.tile_ids)
        np.testing.assert_allclose(found.scores[:1], alone.scores[:1], atol=1e-3)
        if len(alone) and alone.scores[0] > 0.5:
            np.testing.assert_allclose(found.boxes[0], alone.boxes[0], atol=0.05)


@settings(max_examples=15, deadline=None)
@given(
    pixels=st.integers(1, 128 * 128 * 12), limit=st.sampled_from([None, 1, 3, 50]), min_score=st.sampled_from([0.0, 0.01, 0.5])
)
def test_pieces_are_the_whole(predictor: Predictor, pixels: int, limit: int | None, min_score: float) -> None:
    """The memory bound may cut an image's detections anywhere; together they are what one piece would have been."""
    image = discs(128, 128, (16, 16, 11), (80, 50, 11), (112, 112, 9))
    prepared = predictor.prepare(image, parse_budget(1.0))
    outputs = predictor.run([prepared])[0]
    wanted = predictor.filter(min_score, limit, None)
    whole = predictor.finish(outputs, prepared, wanted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MASK_PIXELS", pixels)
        pieces = list(predictor.iter_finish(outputs, prepared, wanted))
    assert pieces
    np.testing.assert_array_equal(np.concatenate([piece.scores for piece in pieces]), whole.scores)
    np.testing.assert_array_equal(np.concatenate([piece.boxes for piece in pieces]), whole.boxes)
    assert sum(len(piece.masks) for piece in pieces) == len(whole)


def test_filters(predictor: Predictor) -> None:
    image = discs(128, 128, (16, 16, 11), (112, 112, 11))
    assert len(predictor.predict([image], 1.0, min_score=0.5)[0]) == 2
    assert len(predictor.predict([image], 1.0, max_detections=1)[0]) == 1
    assert len(predictor.predict([image], 1.0, min_score=0.5, classes=["blob"])[0]) == 2
    with pytest.raises(UsageError, match="tumour") as caught:
        predictor.predict([image], 1.0, classes=["tumour"])
    assert "blob" in caught.value.remedy
    for bad in ({"min_score": -0.1}, {"min_score": 1.5}, {"min_score": float("nan")}, {"max_detections": 0}):
        with pytest.raises(UsageError):
            predictor.predict([image], 1.0, **bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(10, 10), (10, 10, 4), (0, 10, 3), (1, 10, 10, 3)])
def test_arrays_that_are_no_image(predictor: Predictor, shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="expected uint8"):
        predictor.predict([np.zeros(shape, np.uint8)])
    with pytest.raises(ImageError):
        predictor.predict([np.zeros((8, 8, 3), np.float32)])


def test_no_images_no_work(predictor: Predictor) -> None:
    assert predictor.predict([]) == []


@pytest.mark.parametrize("name", ["boxes", "scores", "mask_prototypes"])
def test_non_finite_outputs_are_an_error(predictor: Predictor, name: str) -> None:
    prepared = predictor.prepare(discs(128, 128, (16, 16, 11)), parse_budget(1))
    outputs = predictor.run([prepared])[0]
    outputs[name] = outputs[name].copy()
    outputs[name].flat[0] = np.nan
    with pytest.raises(BackendError) as caught:
        predictor.finish(outputs, prepared, predictor.filter(0.0, None, None))
    assert caught.value.code == "non_finite_output"
