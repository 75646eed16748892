"""A sweep builds what can run here, compares it, and says by reason codes what it left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import jsonschema
import pytest
from discs_coco import write_discs

from apex_runtime.errors import ModelError
from apex_runtime.parity import sweep as module
from apex_runtime.precision.request import PrecisionRequest


class Ran(Protocol):
    """What the fixture ``apex_rt`` gives back."""

    code: int
    out: str
    err: str


@pytest.fixture
def only_fp32_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model has no regions, so no pass can rewrite it; here that is said with a code."""
    plain = module.build_bundle

    def build(model: Path, backend: str, folder: Path, **options: object):
        if options["precision"].wanted == "fp8":  # type: ignore[attr-defined]
            raise ModelError("no FP8 today", "Wait.", code="nothing_to_round")
        return plain(model, backend, folder, **options)

    monkeypatch.setattr(module, "build_bundle", build)


def test_what_runs_here_is_compared_and_the_rest_is_named(
    only_fp32_builds: None, tiny_onnx: Path, repo_root: Path, tmp_path: Path, apex_rt: Callable[..., Ran]
) -> None:
    sample = repo_root / "engines" / "samples" / "797945873ca2a95f.jpg"
    words = ("--sweep", tmp_path / "bundles", "--images", sample, "--budget", "1.0", "--batch", "1,2", "--threads", "1")
    ran = apex_rt("parity", tiny_onnx, *words, "--output", tmp_path / "parity.json")
    assert ran.code == 0, ran.out + ran.err
    document = json.loads((tmp_path / "parity.json").read_text())
    jsonschema.validate(document, json.loads((repo_root / "apex_runtime" / "schemas" / "parity.schema.json").read_text()))
    (comparison,) = document["comparisons"]
    assert comparison["candidate"]["path"].endswith("fp32-ort-cpu")
    assert [(budget["asked"], budget["batch"]) for budget in comparison["budgets"]] == [("1.0", 1), ("1.0", 2)]
    absent = {(item["backend"], item["precision"]): item["reason"] for item in document["absent"]}
    assert absent["ort-cpu", "fp8"] == "nothing_to_round"
    assert {("ort-cpu", "fp16"), ("ort-cpu", "int8"), ("ort-cuda", None), ("tensorrt", None)} <= absent.keys()
    assert all(absent.values()) and "not compared: ort-cuda" in ran.out


def test_a_checkpoint_and_named_candidates_are_wrong_usage(tiny_onnx: Path, tmp_path: Path, apex_rt: Callable[..., Ran]) -> None:
    ran = apex_rt("parity", tiny_onnx, "--against", tiny_onnx, "--sweep", tmp_path / "b")
    assert ran.code == 2 and "--against" in ran.err
    ran = apex_rt("parity", tmp_path / "none.onnx", "--sweep", tmp_path / "b")
    assert ran.code == 2 and "none.onnx" in ran.err and "building" not in ran.err
    (tmp_path / "best.pt").write_bytes(b"")
    ran = apex_rt("parity", tmp_path / "best.pt", "--sweep", tmp_path / "b")
    assert ran.code == 2 and "exported model" in ran.err


def test_where_nothing_can_be_built_every_reason_is_given(
    tiny_onnx: Path, tmp_path: Path, apex_rt: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_: object, **options: object) -> None:
        raise ModelError(f"no {options['precision'].wanted} today", "Wait.")  # type: ignore[attr-defined]

    monkeypatch.setattr(module, "build_bundle", build)
    ran = apex_rt("parity", tiny_onnx, "--sweep", tmp_path / "b", "--output", tmp_path / "r.json")
    assert ran.code == 1 and all(f"no {precision} today" in ran.err for precision in module.PRECISIONS)
    assert "no bundle can be built here" in ran.err and not (tmp_path / "r.json").exists()


def test_ranges_come_from_the_labelled_set(
    tiny_onnx: Path, tmp_path: Path, apex_rt: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_discs(tmp_path / "discs")
    asked = []

    def build(*_: object, precision: PrecisionRequest, **__: object) -> None:
        asked.append((precision.wanted, precision.data))
        raise ModelError("not built", "Wait.")

    monkeypatch.setattr(module, "build_bundle", build)
    apex_rt("parity", tiny_onnx, "--sweep", tmp_path / "b", "--data", data, "--output", tmp_path / "r.json")
    assert asked == [("fp32", None), ("fp16", data), ("int8", data), ("fp8", data)]
