"""What a description may say, and what is refused with the file, the key and the cause in the message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from apex_runtime.errors import ConfigError
from apex_runtime.yardsticks.description import Suppression, is_yardstick, read_description

JOINED = {"form": "joined", "tensor": "out", "box": "cxcywh", "unit": "pixels"}
SEPARATE = {"form": "separate", "boxes": "b", "scores": "s", "score": "sigmoid", "box": "xyxy", "unit": "normalised"}
WHOLE: dict[str, Any] = {"title": "some", "model": "some.onnx", "classes": ["car", "bus"], "outputs": JOINED}


def written(folder: Path, content: Any) -> Path:
    path = folder / "some.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_what_is_left_out_has_the_usual_value(tmp_path: Path) -> None:
    found = read_description(written(tmp_path, WHOLE))
    assert found.input.scale == pytest.approx(1 / 255) and found.input.pad == 114 and found.input.channels == "rgb"
    assert found.suppression is None and found.slicing is None and found.names == ("car", "bus") and found.columns == (0, 1)


def test_the_ways_to_write_things(tmp_path: Path) -> None:
    text = """
    title: some
    model: exports/some.onnx
    classes: {3: bus, 1: car}
    input: {scale: 1/127.5, mean: [1, 1, 1]}
    outputs: {form: end_to_end, tensor: out, box: xyxy, unit: pixels}
    suppression: {iou: 0.7}
    slicing: {side: 512, match: iou}
    """
    found = read_description(written(tmp_path, text))
    assert found.input.scale == pytest.approx(2 / 255)
    assert found.names == ("car", "bus") and found.columns == (1, 3), "in the order of the columns"
    assert found.suppression == Suppression(iou=0.7, per_class=True)
    assert found.slicing is not None and found.slicing.slicing().whole and found.slicing.slicing().match == "iou"
    assert read_description(written(tmp_path, WHOLE | {"suppression": "none"})).suppression is None


@pytest.mark.parametrize(
    ("change", "place", "cause"),
    [
        ({"colour": "red"}, "colour", "not permitted"),
        ({"title": ""}, "title", "at least 1"),
        ({"model": "../other/some.onnx"}, "model", "no path below"),
        ({"model": "/data/some.onnx"}, "model", "no path below"),
        ({"model": "C:\\some.onnx"}, "model", "no path below"),
        ({"model": ""}, "model", "no path below"),
        ({"classes": []}, "classes", "name of its own"),
        ({"classes": ["car", "car"]}, "classes", "name of its own"),
        ({"classes": {-1: "car"}}, "classes", "from 0"),
        ({"classes": [True]}, "classes.0", "string"),
        ({"input": {"scale": "1/0"}}, "input.scale", "division by zero"),
        ({"input": {"scale": "one"}}, "input.scale", "number"),
        ({"input": {"std": [1, 0, 1]}}, "input.std", "division by zero"),
        ({"input": {"size": [0, 64]}}, "input.size.0", "greater than or equal to 1"),
        ({"input": {"pad": 300}}, "input.pad", "255"),
        ({"input": {"mean": [0.1, 0.2, float("nan")]}}, "input.mean.2", "finite"),
        ({"input": {"resize": "stretch", "pad": 0}}, "input", "pad: not read"),
        ({"input": {"layout": "chw"}}, "input.layout", "nchw"),
        ({"outputs": JOINED | {"form": "other"}}, "outputs", "joined"),
        ({"outputs": JOINED | {"box": "xywh"}}, "outputs.box", "cxcywh"),
        ({"outputs": JOINED | {"masks": "m"}}, "outputs.masks", "not permitted"),
        ({"outputs": {key: value for key, value in JOINED.items() if key != "unit"}}, "outputs.unit", "required"),
        ({"outputs": SEPARATE | {"coefficients": "c"}}, "outputs", "belong together"),
        ({"outputs": SEPARATE | {"masks": "m", "coefficients": "c", "prototypes": "p"}}, "outputs", "either masks or"),
        ({"outputs": SEPARATE | {"labels": "l", "pick": "best"}}, "outputs", "pick: not read"),
        ({"outputs": SEPARATE | {"labels": "l", "score": "softmax"}}, "outputs", "softmax"),
        ({"outputs": SEPARATE | {"mask_threshold": 0.5}}, "outputs", "belongs to `masks`"),
        ({"suppression": {"iou": 1.5}}, "suppression.iou", "less than or equal to 1"),
        ({"suppression": "some"}, "suppression", "dictionary"),
        ({"max_candidates": 0}, "max_candidates", "greater than or equal to 1"),
        ({"slicing": {"side": 100, "overlap": 1.0}}, "slicing.overlap", "less than 1"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict[str, Any], place: str, cause: str) -> None:
    path = written(tmp_path, WHOLE | change)
    with pytest.raises(ConfigError) as caught:
        read_description(path)
    assert caught.value.message.startswith(f"{path}: {place}: "), caught.value.message
    assert cause in caught.value.message and "docs/yardsticks.md" in caught.value.remedy
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["", "- a list", "just words", "a: &x [1]\nb: *x", "title: [", "title: \x00"])
def test_what_is_no_description_is_refused(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=r"some\.yaml"):
        read_description(path)


def test_a_description_is_known_by_its_name(tmp_path: Path) -> None:
    assert is_yardstick(written(tmp_path, WHOLE)) and is_yardstick(str(tmp_path / "some.yaml"))
    assert not is_yardstick(tmp_path / "missing.yaml") and not is_yardstick(tmp_path) and not is_yardstick("model.onnx")
