"""Faults planted into the tiny model and the default engine: each is felt at an output, and the node that has it is named."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from graph_faults import SHIPPED, TINY, GraphFault, neighbours, with_fault

from apex_runtime.backends.onnx_contract import read_onnx
from apex_runtime.backends.ort import graph_feeds
from apex_runtime.parity.bisect.journal import Journal
from apex_runtime.parity.cases import load_cases
from apex_runtime.parity.tolerance import Rules, load_profile
from apex_runtime.routing.budget import parse_budget
from apex_runtime.routing.grid import padding_bonus
from apex_runtime.routing.split import plan_tiles

MOST_SLICES = 20
AT_LEAST = 10  # times the tolerance, at an output
RULES = Rules(load_profile("quality"), "fp32")
QUICK = ("a folded bias", "the halo of the tiles", "a Relu with three readers")  # of the default engine, in every run


def test_there_are_twenty_faults_of_either_model() -> None:
    assert len(TINY) >= 20 and len(SHIPPED) >= 20
    assert set(QUICK) <= set(SHIPPED)


@pytest.mark.parametrize("fault", TINY.values(), ids=list(TINY))
def test_the_guilty_node_of_the_tiny_model_is_named(fault: GraphFault, tiny, blobs, searching, validate, tmp_path) -> None:
    check(fault, tiny, searching(tiny, with_fault(tiny, fault), blobs), validate, tmp_path, blobs)


@pytest.mark.parametrize("fault", [SHIPPED[name] for name in QUICK], ids=QUICK)
def test_the_guilty_node_of_the_default_engine_is_named(
    fault: GraphFault, shipped_path, sample, searching, validate, tmp_path
) -> None:
    model = onnx.load(shipped_path)
    check(fault, model, searching(model, with_fault(model, fault), sample), validate, tmp_path, sample)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SHIPPED if name not in QUICK])
def test_every_guilty_node_of_the_default_engine_is_named(name: str, shipped_path, sample, searching, validate, tmp_path) -> None:
    model = onnx.load(shipped_path)
    check(SHIPPED[name], model, searching(model, with_fault(model, SHIPPED[name]), sample), validate, tmp_path, sample)


def check(
    fault: GraphFault, model: onnx.ModelProto, found: Journal, validate: Callable[[str, object], None], folder: Path, image: Path
) -> None:
    """``folder`` holds both models and what was found."""
    assert felt(folder, image) >= AT_LEAST
    assert found.verdict == "found" and found.finding is not None
    assert 1 + len(found.slices) <= MOST_SLICES, "the whole graph is the first slice"
    named = {output_of(model, node.name) for node in found.finding.reference_nodes}
    assert named & neighbours(model, fault.guilty)
    assert len(named) <= 2, "one, or a node that the candidate lost and who reads it"
    validate("bisect", json.loads((folder / "found" / "bisect.json").read_text()))
    reproduces(folder / "found", found)


def felt(folder: Path, image: Path) -> float:
    """By how many tolerances the whole candidate is off at its worst float output, by ONNX Runtime alone, no tile forced."""
    info = read_onnx(folder / "0.onnx").info
    case = load_cases(image, info)[0]
    tiles = plan_tiles(parse_budget("0.5"), case.content_N, info)
    feeds = graph_feeds(info, case.pixels[None], tiles, padding_bonus(case.content_N)[None])
    try:
        wanted, found = (run(folder / name, feeds) for name in ("0.onnx", "1.onnx"))
    except Exception:  # a candidate that does not run; ONNX Runtime's exceptions share no base class of their own
        return math.inf
    return max(times(name, wanted[name], found[name]) for name in wanted if wanted[name].dtype == np.float32)


def run(path: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def times(output: str, wanted: np.ndarray, found: np.ndarray) -> float:
    if wanted.shape != found.shape or not np.isfinite(found).all():
        return math.inf
    tolerance = RULES.tolerance(output)
    assert tolerance is not None
    return float((np.abs(found - wanted) / (tolerance.atol + tolerance.rtol * np.abs(wanted))).max())


def output_of(model: onnx.ModelProto, name: str) -> str:
    """The first output of the node that a finding calls so."""
    return next(node.output[0] for node in model.graph.node if name in (node.name, node.output[0]))


def reproduces(folder: Path, found: Journal) -> None:
    """minimal.onnx, fed with the stored inputs, gives the stored wrong output to the last bit, and the right one is another."""
    assert found.finding is not None
    onnx.checker.check_model(folder / "minimal.onnx")
    feeds = {item.name: np.load(folder / item.file, allow_pickle=False) for item in found.finding.inputs}
    again = run(folder / "minimal.onnx", feeds)[found.finding.outputs[0].name]
    wrong, right = (np.load(folder / f"{side}.npy", allow_pickle=False) for side in ("candidate", "reference"))
    assert again.dtype == wrong.dtype and again.shape == wrong.shape and again.tobytes() == wrong.tobytes()
    assert wrong.shape != right.shape or not np.array_equal(wrong, right)
    assert len(onnx.load(folder / "minimal.onnx").graph.node) == len(found.finding.candidate_nodes) == 1
