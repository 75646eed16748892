"""What may be asked for together, and the flags that ask for the same again."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from apex_runtime.errors import UsageError
from apex_runtime.precision.request import PrecisionRequest


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"profile": "edge", "precision": "int8"}, "--profile edge and --precision int8"),
        ({"profile": "quality", "precision": "fp16"}, "a profile decides the precision"),
        ({"pins": ("neck",)}, "--pin has no meaning: the precision fp32"),
        ({"data": Path("images")}, "--data has no meaning"),
        ({"calibration_cache": Path("c.json")}, "--calibration-cache has no meaning"),
        ({"method": "entropy"}, "--method has no meaning: fp32 rounds nothing"),
        ({"max_drop": 0.5}, "--max-drop has no meaning: fp32 rounds nothing"),
        ({"precision": "fp16", "method": "percentile"}, "--method has no meaning: fp16 rounds nothing"),
        ({"profile": "quality", "max_drop": 0.0}, "--max-drop has no meaning: quality rounds nothing"),
        ({"precision": "int8", "max_drop": -1.0}, "expected 0 to 100 points"),
        ({"precision": "int8", "max_drop": float("nan")}, "expected 0 to 100 points"),
        ({"precision": "int8", "max_drop": float("inf")}, "expected 0 to 100 points"),
    ],
)
def test_what_has_no_meaning_together_is_refused(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        PrecisionRequest(**asked).check()
    assert caught.value.remedy


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"precision": "fp16", "pins": ("neck",), "data": Path("x"), "calibration_cache": Path("c.json")},
        {"precision": "int8", "method": "entropy", "max_drop": 0.0},
        {"profile": "balanced", "method": "percentile", "max_drop": 0.5, "pins": ("a", "b")},
        {"profile": "quality", "report": False},
    ],
)
def test_the_rest_is_allowed(asked: dict[str, Any]) -> None:
    PrecisionRequest(**asked).check()


def test_a_profile_has_a_name_and_a_precision() -> None:
    assert (PrecisionRequest(profile="edge").name, PrecisionRequest(profile="edge").wanted) == ("edge", "int8")
    assert (PrecisionRequest("fp8").name, PrecisionRequest("fp8").wanted) == ("fp8", "fp8")


def parsed(request: PrecisionRequest) -> dict[str, Any]:
    """What ``build-engine`` would understand of the words, by click and a shell."""
    from apex_runtime.cli.build_engine import build_engine

    words = shlex.split(" ".join(["model.onnx", "-o", "bundle", *request.words()]))
    values = build_engine.make_context("build-engine", words).params
    keys = ("precision", "profile", "pin", "method", "data", "calibration_images", "max_drop", "report")
    return {key: values[key] for key in keys if values[key] not in (None, ())}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, {}),
        ({"precision": "fp16"}, {"precision": "fp16"}),
        ({"profile": "edge", "report": False}, {"profile": "edge", "report": False}),
        ({"precision": "int8", "method": "entropy"}, {"precision": "int8", "method": "entropy"}),
        (
            {"precision": "int8", "pins": (r"foveal\.(a|b) 'c'", "neck")},
            {"precision": "int8", "pin": (r"foveal\.(a|b) 'c'", "neck")},
        ),
        ({"precision": "fp8", "data": Path("/some/where/my images")}, {"precision": "fp8", "data": Path("my images")}),
        ({"precision": "fp8", "data": Path("in/*.jpg")}, {"precision": "fp8", "data": Path("*.jpg")}),
        (
            {"precision": "int8", "max_drop": 0.25, "calibration_images": 7},
            {"precision": "int8", "max_drop": 0.25, "calibration_images": 7},
        ),
    ],
)
def test_the_words_ask_for_the_same_again(asked: dict[str, Any], words: dict[str, Any]) -> None:
    """Folders of this machine stay out of them, and the place of the cache."""
    assert parsed(PrecisionRequest(**asked, calibration_cache=Path("/secret/cache.json"))) == words


def test_the_folder_one_is_in_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nuclei").mkdir()
    monkeypatch.chdir(tmp_path / "nuclei")
    assert parsed(PrecisionRequest("int8", data=Path(".")))["data"] == Path("nuclei")
