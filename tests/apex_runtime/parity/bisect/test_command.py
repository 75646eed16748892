"""``apex-rt parity --bisect``: what is printed, the exit codes, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from discs_coco import write_discs
from graph_faults import TINY, with_fault

from apex_runtime.bundle.build import build_bundle


@pytest.fixture
def reference(tiny, tmp_path: Path) -> Path:
    path = tmp_path / "reference.onnx"
    onnx.save(tiny, path)
    return path


@pytest.fixture
def spoilt(tiny, tmp_path: Path):
    """``spoilt(name)``: a file of the tiny model with that fault."""

    def make(name: str) -> Path:
        path = tmp_path / "spoilt.onnx"
        onnx.save(with_fault(tiny, TINY[name]), path)
        return path

    return make


def test_a_finding_is_told(apex_rt, reference, spoilt, blobs, tmp_path) -> None:
    folder = tmp_path / "deep" / "found"
    ran = apex_rt("parity", reference, "--against", spoilt("Sub for Add"), "--bisect", folder, "--images", blobs)
    assert ran.code == 1
    for words in (
        "They differ on blobs.png under budget 0.25",
        "The guilty node: ey (Add)",
        "op: Add, in the candidate Sub",
        "reference  float32 [1, 16, 1]: min",
        "times the tolerance",
        "slices after the whole graph",
        "minimal.onnx",
    ):
        assert words in ran.out
    assert not (tmp_path / "parity.json").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a NaN in a weight", "NaN or Inf on one side at [0, "),
        ("a Relu", "The guilty node is among these: positive (Relu)"),
        ("ties of the keys", "both sides left alone"),
        ("steps of the keys", "weight rounding: 1 of 1 values differ"),
    ],
)
def test_what_a_finding_says(name: str, words: str, apex_rt, reference, spoilt, blobs, tmp_path) -> None:
    arguments = ("parity", reference, "--against", spoilt(name), "--bisect", tmp_path / "found", "--images", blobs)
    first = apex_rt(*arguments, "--budget", "0.5")
    assert first.code == 1 and words in first.out
    again = apex_rt(*arguments, "--budget", "0.5")
    assert (again.code, again.out) == (1, first.out)


def test_a_bundle_of_the_same_model(apex_rt, reference, blobs, validate, tmp_path) -> None:
    build_bundle(reference, "ort-cpu", tmp_path / "bundle")
    arguments = ("parity", reference, "--against", tmp_path / "bundle", "--bisect", tmp_path / "found", "--images", blobs)
    ran = apex_rt(*arguments)
    assert ran.code == 0
    assert "Nothing differs on 5 image(s) under budget 0.25, 0.5, 1.0." in ran.out
    printed = apex_rt(*arguments, "--json")
    assert printed.code == 0
    validate("bisect", json.loads(printed.out))


def test_what_cannot_be_bisected(apex_rt, reference, blobs, tmp_path) -> None:
    (tmp_path / "best.pt").write_bytes(b"no matter")
    recorded = tmp_path / "gpu.json"
    assert apex_rt("parity", reference, "--record", recorded, "--images", blobs, "--budget", "4").code == 0
    common = ("--bisect", tmp_path / "found", "--images", blobs)
    for arguments, words in (
        ((reference, "--against", f"{reference},{reference}"), "expected one"),
        ((tmp_path / "best.pt", "--against", reference), "apex-train export best.pt -o model.onnx"),
        ((reference, "--against", tmp_path / "best.pt"), "apex-train export"),
        ((reference, "--against", recorded), "a recording has none"),
        ((reference, "--against", tmp_path / "none.onnx"), "no such file"),
        ((reference, "--against", reference, "--size", "64x64"), "has a fixed size"),
        ((reference, "--against", reference, "--budget", "7x"), "7x"),
    ):
        ran = apex_rt("parity", *arguments, *common)
        assert ran.code == 2 and words in ran.err
    assert apex_rt("parity", reference, "--against", reference, "--bisect", "").code == 2
    assert not (tmp_path / "found").exists()


def test_a_place_that_cannot_be_written(apex_rt, reference, blobs, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    ran = apex_rt("parity", reference, "--against", reference, "--images", blobs, "--bisect", tmp_path / "file" / "found")
    assert ran.code == 2 and "cannot be written" in ran.err


def test_the_images_of_a_labelled_set(apex_rt, reference, spoilt, tmp_path) -> None:
    data = write_discs(tmp_path / "discs")
    given = ("--bisect", tmp_path / "found", "--data", data, "--limit", 1, "--json")
    ran = apex_rt("parity", reference, "--against", spoilt("Sub for Add"), *given)
    found = json.loads(ran.out)
    assert ran.code == 1 and found["start"]["image"] == "1.png" and len(found["key"]["images"]) == 1 + 4
