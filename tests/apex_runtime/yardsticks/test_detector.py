"""A yardstick from its two files to detections, and what is said where the files do not fit each other."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bright_cells import write_bright_cells
from fixed_outputs import write_yardstick
from onnx import TensorProto, helper, numpy_helper

from apex_runtime.data.open import open_dataset
from apex_runtime.errors import ApexError, BackendError, ConfigError, ImageError, ModelError, UsageError
from apex_runtime.evaluation.coco_ap import evaluate_predictor
from apex_runtime.yardsticks.graph import Graph
from apex_runtime.yardsticks.yardstick import Yardstick

JOINED = {"form": "joined", "tensor": "out", "box": "cxcywh", "unit": "pixels"}
SEPARATE = {"form": "separate", "boxes": "b", "scores": "s", "score": "sigmoid", "box": "cxcywh", "unit": "normalised"}
NUMBERS = np.array([[[48.0, 32, 20, 10, 0.9, 0.1], [50, 32, 20, 10, 0.8, 0.2], [20, 50, 8, 8, 0.2, 0.7]]], np.float32)
ROWS = NUMBERS.transpose(0, 2, 1)  # two classes, three places


def yardstick(folder: Path, change: dict[str, Any] | None = None, outputs: Any = None, **graph: Any) -> Yardstick:
    whole = {"classes": ["car", "bus"], "outputs": JOINED} | (change or {})
    return Yardstick(write_yardstick(folder, whole, outputs or {"out": ROWS}, **graph), threads=1)


def test_boxes_are_found_in_pixels_of_the_image(tmp_path: Path) -> None:
    """An image of 128 x 96 pixels in an input of 64 x 96: half the scale, 24 columns of padding on the left."""
    (found,) = yardstick(tmp_path).predict([np.zeros((128, 96, 3), np.uint8)])
    np.testing.assert_allclose(found.boxes, [[28, 54, 68, 74], [32, 54, 72, 74], [0, 92, 0, 108]][:2], atol=1e-4)
    np.testing.assert_allclose(found.scores, [0.9, 0.8])
    assert found.labels.tolist() == [0, 0] and found.category_ids.tolist() == [1, 1], "the third lies in the padding"
    assert (found.letterbox.source_height, found.letterbox.source_width, found.n_content) == (128, 96, 0)


def test_suppression_limit_and_score(tmp_path: Path) -> None:
    image = np.zeros((64, 96, 3), np.uint8)
    assert len(yardstick(tmp_path).predict([image])[0]) == 3
    suppressed = yardstick(tmp_path, {"suppression": {"iou": 0.5}})
    assert suppressed.predict([image])[0].scores.tolist() == pytest.approx([0.9, 0.7])
    assert len(suppressed.predict([image], max_detections=1)[0]) == 1
    assert len(suppressed.predict([image], min_score=0.8)[0]) == 1
    assert len(suppressed.predict([image], min_score=0.95)[0]) == 0 and suppressed.predict([]) == []


def test_what_a_table_must_say(tmp_path: Path) -> None:
    found = yardstick(tmp_path, {"suppression": {"iou": 0.5}, "input": {"resize": "stretch", "rounded": False}})
    facts = found.facts
    for name, file in (("model_sha256", "fixed.onnx"), ("description_sha256", "fixed.yaml")):
        assert getattr(facts, name) == hashlib.sha256((tmp_path / file).read_bytes()).hexdigest()
    assert (facts.size, facts.precision, facts.kinds, facts.backend) == ((64, 96), "fp32", ("bbox",), "ort-cpu")
    assert facts.resize == "stretch, linear, not rounded"
    assert facts.postprocessing == "best class, at most 30000 candidates, NMS iou 0.5 per class"
    assert [category.name for category in found.info.classes] == ["car", "bus"]
    assert (found.info.input.height, found.info.input.width) == (64, 96)


def test_the_words_tell_descriptions_apart(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"suppression": {"iou": 0.5}},
        {"suppression": {"iou": 0.5, "per_class": False}},
        {"max_candidates": 5},
        {"outputs": JOINED | {"pick": "every"}},
        {"slicing": {"side": 32}},
        {"slicing": {"side": 32, "match": "iou"}},
        {"slicing": {"side": 32, "whole": False}},
    ]
    assert len({yardstick(tmp_path, change).facts.postprocessing for change in changes}) == len(changes)
    resizes = [{}, {"align": "top_left"}, {"pad": 0}, {"resize": "stretch"}, {"interpolation": "area"}]
    assert len({yardstick(tmp_path, {"input": change}).facts.resize for change in resizes}) == len(resizes)


def test_every_image_has_its_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call takes 6 ms here, everything 60: images that come together have equal shares."""
    found = yardstick(tmp_path, {"slicing": {"side": 40}})  # 2 x 3 windows and the whole
    monkeypatch.setattr("apex_runtime.yardsticks.graph.milliseconds_since", lambda _started: 6.0)
    monkeypatch.setattr("apex_runtime.yardsticks.yardstick.milliseconds_since", lambda _started: 60.0)
    found.predict([np.zeros((64, 96, 3), np.uint8)] * 2)
    found.predict([np.zeros((10, 10, 3), np.uint8)])
    assert found.graph_milliseconds == [42, 42, 6] and found.predict_milliseconds == [30, 30, 60]


@pytest.mark.parametrize(("batch", "calls"), [("1", 11), ("n", 2)])
def test_the_graph_alone_is_called_as_predict_calls_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: str, calls: int
) -> None:
    path = write_bright_cells(tmp_path, side=64, batch=batch)
    path.write_text(path.read_text() + "slicing: {side: 32, overlap: 0, whole: false}\n")
    found = Yardstick(path, threads=1)
    assert found.windows(32, 11 * 32) == 11 and found.windows(10, 10) == 1
    seen: list[int] = []
    call = Graph.call
    monkeypatch.setattr(Graph, "call", lambda graph, images, names: seen.append(len(images)) or call(graph, images, names))
    found.graph_call(11)()
    (alone, seen[:]) = (list(seen), [])
    found.predict([np.zeros((32, 11 * 32, 3), np.uint8)])
    assert alone == seen and len(seen) == calls and sum(seen) == 11
    assert len(found.graph_milliseconds) == 1, "only images count"


def test_what_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"float64 \(8, 8, 3\), expected uint8"):
        yardstick(tmp_path).predict([np.zeros((8, 8, 3))])


@pytest.mark.parametrize("batch", ["1", "n"])
def test_bright_cells_find_nuclei_better_than_chance(tmp_path: Path, nuclei_fixture: Path, batch: str) -> None:
    found = Yardstick(write_bright_cells(tmp_path, batch=batch), threads=1)
    assert found.facts.kinds == ("bbox", "segm")
    figures = evaluate_predictor(found, open_dataset(nuclei_fixture, "val"))
    assert figures["AR1_segm"] >= 0 and figures["ARmax_segm"] > 0.005


def test_images_of_one_call_are_answered_as_one_by_one(tmp_path: Path, nuclei_fixture: Path) -> None:
    dataset = open_dataset(nuclei_fixture, "train")
    images = [dataset.read_image(index) for index in range(len(dataset))] * 2
    together = Yardstick(write_bright_cells(tmp_path, batch="n"), threads=1).predict(images, min_score=0.2)
    alone = Yardstick(write_bright_cells(tmp_path, batch="1"), threads=1).predict(images, min_score=0.2)
    assert sum(map(len, alone)) > 20
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_array_equal(a.boxes, b.boxes)
        assert all(np.array_equal(m.bits, n.bits) for m, n in zip(a.masks, b.masks, strict=True))


@pytest.mark.parametrize(("kind", "pixels"), [(TensorProto.UINT8, {"scale": 1}), (TensorProto.FLOAT16, {})])
def test_inputs_of_other_types(tmp_path: Path, kind: int, pixels: dict[str, Any]) -> None:
    assert len(yardstick(tmp_path, {"input": pixels}, kind=kind).predict([np.zeros((64, 96, 3), np.uint8)])[0]) == 3


def test_a_second_input_gets_width_and_height(tmp_path: Path) -> None:
    """As in the exports of RT-DETR and D-FINE, which scale their boxes by it: here the only box is that size."""
    wanted = {"form": "separate", "boxes": "b", "scores": "s", "labels": "l", "score": "probability"}
    path = write_yardstick(
        tmp_path,
        {"classes": ["a"], "input": {"sizes": "sizes"}, "outputs": wanted | {"box": "xyxy", "unit": "pixels"}},
        {"s": np.ones((1, 1), np.float32), "l": np.zeros((1, 1), np.int64)},
        inputs={"images": (1, 3, 64, 96)},
    )
    model = onnx.load(tmp_path / "fixed.onnx")
    model.graph.input.append(helper.make_tensor_value_info("sizes", TensorProto.INT64, (1, 2)))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 4]), "shape"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([[0, 0, 1, 0.5]], np.float32), "share"))
    model.graph.node.extend(
        [
            helper.make_node("Cast", ["sizes"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("Concat", ["numbers", "numbers"], ["twice"], axis=1),
            helper.make_node("Mul", ["twice", "share"], ["flat"]),
            helper.make_node("Reshape", ["flat", "shape"], ["b"]),
        ]
    )
    model.graph.output.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, (1, 1, 4)))
    onnx.save(model, tmp_path / "fixed.onnx")
    (found,) = Yardstick(path).predict([np.zeros((128, 192, 3), np.uint8)])
    np.testing.assert_array_equal(found.boxes, [[0, 0, 192, 64]])


def test_a_size_that_the_graph_leaves_open(tmp_path: Path) -> None:
    found = yardstick(tmp_path, {"input": {"size": [64, 128]}}, size=("h", "w"))
    assert found.facts.size == (64, 128)
    assert len(found.predict([np.zeros((64, 96, 3), np.uint8)])[0]) == 3


@pytest.mark.parametrize("budget", [0.5, 4, "25%"])
def test_it_has_no_budget(tmp_path: Path, budget: Any) -> None:
    with pytest.raises(UsageError, match=r"budget .* has no budget"):
        yardstick(tmp_path).predict([np.zeros((4, 4, 3), np.uint8)], budget)


TWO = np.zeros((1, 3, 2), np.float32)
BOXES = np.zeros((1, 3, 4), np.float32)


@pytest.mark.parametrize(
    ("change", "outputs", "graph", "message"),
    [
        ({"outputs": JOINED | {"tensor": "output0"}}, None, {}, r"no output 'output0'; it has out\."),
        ({"classes": ["car"]}, None, {}, r"'out' has the shape \[1, 6, 3\]: .* 2 columns of scores, and classes has 1 names"),
        ({"classes": {0: "car", 5: "bus"}}, None, {}, r"2 columns .* class 'bus' is given column 5"),
        ({}, {"out": TWO[0]}, {}, r"'out' has the shape \[3, 2\]: 3 dimensions"),
        ({"outputs": JOINED | {"places": "first"}}, None, {}, r"there are -1 columns of scores"),
        ({"outputs": JOINED | {"prototypes": "p"}}, {"out": ROWS, "p": BOXES}, {}, r"'p' has the shape \[1, 3, 4\]: 4 dim"),
        ({"outputs": {"form": "end_to_end", "tensor": "out", "box": "xyxy", "unit": "pixels"}}, None, {}, r"3 numbers per place"),
        ({"outputs": SEPARATE}, {"b": TWO, "s": TWO}, {}, r"'b' .*: 4 numbers per box"),
        ({"outputs": SEPARATE}, {"b": BOXES, "s": np.zeros((1, 7, 2), np.float32)}, {}, r"'s' .*: 'b' has 3 places"),
        (
            {"outputs": SEPARATE | {"masks": "m"}},
            {"b": BOXES, "s": TWO, "m": np.zeros((1, 4, 8, 8), np.float32)},
            {},
            r"'m' .*: 'b' has 3 places",
        ),
        (
            {"outputs": SEPARATE | {"coefficients": "b", "prototypes": "p"}},
            {"b": BOXES, "s": TWO, "p": np.zeros((1, 5, 8, 8), np.float32)},
            {},
            r"'b' .*: 'p' has 5 prototypes",
        ),
        ({}, None, {"inputs": {"a": (1, 3, 64, 96), "sizes": (1, 2)}}, r"inputs are a, sizes; one image is all"),
        ({"input": {"sizes": "sizes"}}, None, {}, r"inputs are images; one image and 'sizes' is all"),
        ({}, None, {"inputs": {"a": (1, 64, 96, 3)}}, r"shape \[1, 64, 96, 3\], which is no nchw image"),
        ({}, None, {"inputs": {"a": (4, 3, 64, 96)}}, r"fixed to 4 images"),
        ({}, None, {"kind": TensorProto.INT64}, r"type int64, expected one of float32"),
        ({}, None, {"size": ("h", "w")}, r"no fixed height"),
        ({"input": {"size": [64, 64]}}, None, {}, r"width 96, the description says 64"),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, change: Any, outputs: Any, graph: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        yardstick(tmp_path, change, outputs, **graph)
    assert str(tmp_path / "fixed.onnx") in caught.value.message and caught.value.remedy


def test_numbers_that_are_none(tmp_path: Path) -> None:
    found = yardstick(tmp_path, outputs={"out": np.where(ROWS == 48, np.nan, ROWS).astype(np.float32)})
    with pytest.raises(BackendError, match=r"output 'out': 1 of 18 values are NaN") as caught:
        found.predict([np.zeros((64, 96, 3), np.uint8)])
    assert caught.value.code == "non_finite_output"


def test_a_model_that_is_missing_damaged_or_unknown(tmp_path: Path) -> None:
    path = write_yardstick(tmp_path, {"classes": ["car", "bus"], "outputs": JOINED}, {"out": ROWS})
    model = onnx.load(tmp_path / "fixed.onnx")
    model.graph.node[0].op_type = "Unheard"
    for data, kind, message in (
        (model.SerializeToString(), BackendError, "cannot load it"),
        (b"no model", ModelError, "damaged"),
        (b"", ModelError, "empty"),
        (None, UsageError, "no such file"),
    ):
        (tmp_path / "fixed.onnx").unlink()
        if data is not None:
            (tmp_path / "fixed.onnx").write_bytes(data)
        with pytest.raises(kind, match=message) as caught:
            Yardstick(path)
        assert isinstance(caught.value, ApexError) and "docs/yardsticks.md" in caught.value.remedy
        (tmp_path / "fixed.onnx").touch()


def test_a_description_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        Yardstick(tmp_path / "none.yaml")
