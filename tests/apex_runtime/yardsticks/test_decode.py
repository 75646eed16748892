"""Every form of outputs against what it means, written out place by place in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from apex_runtime.errors import ModelError
from apex_runtime.yardsticks.decode import candidates_of, places_of
from apex_runtime.yardsticks.description import Description

SIZE = (64, 96)  # height, width
PLACES, CLASSES, MASKS = 40, 3, 5
RNG = np.random.default_rng(0)
CXCYWH = np.concatenate([RNG.uniform(10, 50, (PLACES, 2)), RNG.uniform(2, 20, (PLACES, 2))], axis=1)
LOGITS = RNG.normal(0, 2, (PLACES, CLASSES))
COEFFICIENTS = RNG.normal(0, 1, (PLACES, MASKS))


def description(outputs: dict[str, Any], classes: Any = ("a", "b", "c"), **more: Any) -> Description:
    return Description.model_validate({"title": "t", "model": "m.onnx", "classes": classes, "outputs": outputs, **more})


def box_of(numbers: np.ndarray, form: str, unit: str) -> list[float]:
    x1, y1, x2, y2 = (float(value) for value in numbers)
    if form == "cxcywh":
        x1, y1, x2, y2 = x1 - x2 / 2, y1 - y2 / 2, x1 + x2 / 2, y1 + y2 / 2
    return [x1 * 96, y1 * 64, x2 * 96, y2 * 64] if unit == "normalised" else [x1, y1, x2, y2]


def chance(row: np.ndarray, form: str) -> list[float]:
    if form == "softmax":
        powers = [math.exp(value) for value in row]
        return [value / sum(powers) for value in powers]
    return [1 / (1 + math.exp(-value)) if form == "sigmoid" else float(value) for value in row]


def expected(boxes, scores, how, *, pick, least, columns=(0, 1, 2), limit=30000) -> list[tuple[float, int, int, list[float]]]:
    """(score, label, place, box), best first."""
    found = []
    for place, (box, row) in enumerate(zip(boxes, scores, strict=True)):
        chances = [chance(row, how["score"])[column] for column in columns]
        labels = range(len(columns)) if pick == "every" else [max(range(len(columns)), key=chances.__getitem__)]
        corners = box_of(box, how["box"], how["unit"])
        found += [(chances[label], label, place, corners) for label in labels if chances[label] >= least]
    return sorted(found, key=lambda item: -item[0])[:limit]


def same(found, wanted) -> None:
    assert len(found.scores) == len(wanted) > 3
    np.testing.assert_allclose(found.scores, [item[0] for item in wanted], rtol=1e-5)
    assert found.labels.tolist() == [item[1] for item in wanted]
    assert found.places.tolist() == [item[2] for item in wanted]
    np.testing.assert_allclose(found.boxes, [item[3] for item in wanted], rtol=1e-5, atol=1e-4)
    assert found.boxes.dtype == found.scores.dtype == np.float32 and found.labels.dtype == np.int64


@pytest.mark.parametrize("places", ["last", "first"])
@pytest.mark.parametrize("pick", ["best", "every"])
def test_joined(places: str, pick: str) -> None:
    how = {"box": "cxcywh", "unit": "pixels", "score": "probability"}
    wanted = description({"form": "joined", "tensor": "out", "prototypes": "p", "places": places, "pick": pick, **how})
    chances = 1 / (1 + np.exp(-LOGITS))
    rows = np.concatenate([CXCYWH, chances, COEFFICIENTS], axis=1).astype(np.float32)
    outputs = {"out": rows.T if places == "last" else rows, "p": np.zeros((MASKS, 16, 24), np.float32)}
    read = places_of(outputs, wanted)
    same(candidates_of(read, wanted, SIZE, 0.3), expected(CXCYWH, chances, how, pick=pick, least=0.3))
    assert read.coefficients is not None
    np.testing.assert_allclose(read.coefficients, COEFFICIENTS, rtol=1e-6)


@pytest.mark.parametrize("box", ["cxcywh", "xyxy"])
@pytest.mark.parametrize("unit", ["pixels", "normalised"])
@pytest.mark.parametrize("score", ["sigmoid", "softmax", "probability"])
@pytest.mark.parametrize("pick", ["best", "every"])
def test_separate(box: str, unit: str, score: str, pick: str) -> None:
    how = {"box": box, "unit": unit, "score": score}
    wanted = description({"form": "separate", "boxes": "b", "scores": "s", "pick": pick, **how})
    boxes = CXCYWH / 100 if unit == "normalised" else CXCYWH
    numbers = 1 / (1 + np.exp(-LOGITS)) if score == "probability" else LOGITS
    read = places_of({"b": boxes.astype(np.float32), "s": numbers.astype(np.float32)}, wanted)
    same(candidates_of(read, wanted, SIZE, 0.2), expected(boxes, numbers, how, pick=pick, least=0.2))


def test_columns_without_a_name_are_no_class() -> None:
    """Background takes its share of a softmax and is never found; a name may be of any column."""
    how = {"box": "cxcywh", "unit": "pixels", "score": "softmax"}
    outputs = {"form": "separate", "boxes": "b", "scores": "s", "pick": "best", **how}
    wanted = description(outputs, {2: "b", 0: "a"})
    read = places_of({"b": CXCYWH.astype(np.float32), "s": LOGITS.astype(np.float32)}, wanted)
    found = candidates_of(read, wanted, SIZE, 0.1)
    same(found, expected(CXCYWH, LOGITS, how, pick="best", least=0.1, columns=(0, 2)))
    assert wanted.names == ("a", "b") and set(found.labels.tolist()) == {0, 1}


def test_at_most_so_many_candidates_the_best() -> None:
    how = {"box": "xyxy", "unit": "pixels", "score": "sigmoid"}
    wanted = description({"form": "separate", "boxes": "b", "scores": "s", **how}, max_candidates=7)
    read = places_of({"b": CXCYWH.astype(np.float32), "s": LOGITS.astype(np.float32)}, wanted)
    same(candidates_of(read, wanted, SIZE, 0.0), expected(CXCYWH, LOGITS, how, pick="every", least=0.0, limit=7))


@pytest.mark.parametrize("form", ["end_to_end", "labels"])
def test_rows_with_score_and_class(form: str) -> None:
    scores, labels = RNG.uniform(0, 1, PLACES), RNG.integers(0, 3, PLACES)
    how = {"box": "xyxy", "unit": "pixels"}
    if form == "end_to_end":
        wanted = description({"form": form, "tensor": "out", "prototypes": "p", **how})
        rows = np.concatenate([CXCYWH, scores[:, None], labels[:, None], COEFFICIENTS], axis=1).astype(np.float32)
        outputs = {"out": rows, "p": np.zeros((MASKS, 16, 24), np.float32)}
    else:
        wanted = description({"form": "separate", "boxes": "b", "scores": "s", "labels": "l", "score": "probability", **how})
        outputs = {"b": CXCYWH.astype(np.float32), "s": scores.astype(np.float32), "l": labels}
    read = places_of(outputs, wanted)
    order = [place for place in np.argsort(-scores) if scores[place] >= 0.25]
    rows_wanted = [(scores[place], labels[place], place, box_of(CXCYWH[place], "xyxy", "pixels")) for place in order]
    same(candidates_of(read, wanted, SIZE, 0.25), rows_wanted)


def test_a_label_that_no_class_has() -> None:
    outputs = {"form": "separate", "boxes": "b", "scores": "s", "labels": "l"}
    outputs |= {"score": "probability", "box": "xyxy", "unit": "pixels"}
    read = places_of(
        {"b": np.zeros((3, 4)), "s": np.array([0.9, 0.8, 0.0]), "l": np.array([1, 5, -1])}, wanted := description(outputs)
    )
    with pytest.raises(ModelError, match=r"class 5.* 3 classes"):
        candidates_of(read, wanted, SIZE, 0.1)
    found = candidates_of(read, description(outputs, {1: "b", 9: "c"}), SIZE, 0.1)
    assert found.labels.tolist() == [0] and found.places.tolist() == [0], "a mapping says what is left out"


def test_nothing_is_found_where_nothing_is_good_enough() -> None:
    wanted = description({"form": "separate", "boxes": "b", "scores": "s", "score": "sigmoid", "box": "xyxy", "unit": "pixels"})
    read = places_of({"b": CXCYWH, "s": np.full((PLACES, 3), -90.0)}, wanted)
    found = candidates_of(read, wanted, SIZE, 0.001)
    assert found.boxes.shape == (0, 4) and len(found.scores) == 0
