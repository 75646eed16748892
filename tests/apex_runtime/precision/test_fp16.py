"""The pass fp16 on the shipped model: the same model within the tolerance profile, and honest about what it kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from apex_runtime.backends.onnx_contract import OnnxFile
from apex_runtime.backends.ort import OrtSession
from apex_runtime.errors import ModelError
from apex_runtime.parity.cases import real_case, synthetic_cases
from apex_runtime.parity.run import compare_sessions
from apex_runtime.parity.tolerance import Rules, load_profile
from apex_runtime.precision.convert import Converted, convert
from apex_runtime.precision.data import precision_data
from apex_runtime.precision.half_graph import with_half_nodes
from apex_runtime.precision.pinned import PINNED
from apex_runtime.precision.plan import Plan
from apex_runtime.precision.ranges import Feeds, calibration_feeds
from apex_runtime.precision.regions import NO_SCOPE, SCOPE_KEY
from apex_runtime.precision.tensor_types import half_inputs, tensor_types
from apex_runtime.routing.budget import parse_budget


@pytest.fixture(scope="module")
def feeds(shipped: OnnxFile, sample: Path) -> list[Feeds]:
    return list(calibration_feeds(precision_data(sample).calibration, shipped.info))


@pytest.fixture(scope="module")
def converted(shipped: OnnxFile, feeds: list[Feeds]) -> Converted:
    return convert(shipped.model, Plan(half=True), feeds)


def saved(model: onnx.ModelProto, folder: Path) -> OrtSession:
    onnx.checker.check_model(model, full_check=True)
    path = folder / "half.onnx"
    onnx.save(model, path)
    return OrtSession(path, threads=1)


def test_it_is_the_same_model_under_the_profile_quality(
    converted: Converted, shipped_path: Path, repo_root: Path, tmp_path: Path
) -> None:
    """Real images, two of them dark, which are not the one that was calibrated on, and the synthetic ones."""
    full, half = OrtSession(shipped_path, threads=1), saved(converted.model, tmp_path)
    samples = repo_root / "engines" / "samples"
    dark = [real_case(samples / f"{name}.jpg", name, full.info) for name in ("80632d6be60c8462", "b24ea5c268469a95")]
    rules = Rules(load_profile("quality"), "fp16")
    budgets = [parse_budget("0.25"), parse_budget("1.0")]
    for result in compare_sessions(full, half, [*dark, *synthetic_cases(full.info)], budgets, rules):
        assert result.reasons(rules) == []
        assert set(result.decisions.overlaps) == {1.0}, "the router is pinned: the same tiles"
        assert result.outputs["scores"].max_abs > 0, "something was rounded"


def test_functions_inputs_and_outputs_are_those_of_before(converted: Converted, shipped: OnnxFile) -> None:
    before, after = shipped.model, converted.model
    assert list(before.functions) == list(after.functions) and len(after.functions) == 3
    assert list(before.graph.input) == list(after.graph.input)
    assert list(before.graph.output) == list(after.graph.output)
    assert before.metadata_props == after.metadata_props


def test_most_of_the_weights_are_stored_in_half(converted: Converted, shipped: OnnxFile) -> None:
    bytes_of = {
        kind: sum(len(tensor.raw_data) for tensor in converted.model.graph.initializer if tensor.data_type == kind)
        for kind in (TensorProto.FLOAT, TensorProto.FLOAT16)
    }
    assert bytes_of[TensorProto.FLOAT] < 0.1 * bytes_of[TensorProto.FLOAT16]
    assert converted.model.ByteSize() < 0.6 * shipped.model.ByteSize()


def test_every_node_has_a_decision_that_the_graph_bears_out(converted: Converted, shipped: OnnxFile) -> None:
    assert [item.node for item in converted.decisions] == [node.name for node in shipped.model.graph.node]
    types = tensor_types(converted.model)
    nodes = {node.name: node for node in converted.model.graph.node}
    for item in converted.decisions:
        found = {types.get(name) for name in (*nodes[item.node].input, *nodes[item.node].output)}
        assert (TensorProto.FLOAT16 in found) == (item.precision == "float16"), item
        assert (TensorProto.FLOAT in found) <= (item.precision == "float32" or item.op == "Resize"), item
    pinned = {item.precision for item in converted.decisions if PINNED.get(item.region) == "float32" or item.region == NO_SCOPE}
    assert pinned == {"float32", "integer"}
    heavy = [item for item in converted.decisions if item.op == "Conv" and item.region != "entrance"]
    assert len(heavy) == 70 and {item.precision for item in heavy} == {"float16"}


def test_casts_belong_to_a_region(converted: Converted, shipped: OnnxFile) -> None:
    names = {node.name for node in shipped.model.graph.node}
    added = [node for node in converted.model.graph.node if node.name not in names]
    assert {node.op_type for node in added} == {"Cast"} and len(added) < 25
    scoped = [node for node in added if any(prop.key == SCOPE_KEY for prop in node.metadata_props)]
    assert len(scoped) >= len(added) - 4, "all but those for the four nodes that have no scope themselves"


FIRST, SECOND = "detector.foveal.middle.0.first.0", "detector.foveal.middle.0.second.0"


def scaled(model: onnx.ModelProto, factor: float) -> onnx.ModelProto:
    """The same function: what one convolution makes larger, the next, behind a Relu, makes smaller again."""
    factors = {f"{FIRST}.weight": factor, f"{FIRST}.bias": factor, f"{SECOND}.weight": 1 / factor}
    for tensor in model.graph.initializer:
        if tensor.name in factors:
            array = numpy_helper.to_array(tensor) * np.float32(factors.pop(tensor.name))
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    assert not factors
    return model


@pytest.mark.parametrize(("factor", "words"), [(2.0**16, "float16 ends at 65504"), (2.0**-24, "float16 loses digits")])
def test_numbers_that_do_not_fit_stay_float32(
    model: onnx.ModelProto, feeds: list[Feeds], shipped_path: Path, tmp_path: Path, factor: float, words: str
) -> None:
    result = convert(scaled(model, factor), Plan(half=True), feeds)
    kept = [item for item in result.decisions if item.precision == "float32" and item.region == "foveal"]
    assert [item.op for item in kept] == ["Conv", "Relu", "Conv"]
    assert all(words in item.reason and " to " in item.reason for item in kept)
    full, half = OrtSession(shipped_path, threads=1), saved(result.model, tmp_path)
    images, bonus = feeds[0]["images"], feeds[0]["tile_bonus"]
    before, after = (session.run(images, 4, bonus) for session in (full, half))
    np.testing.assert_allclose(after["mask_prototypes"], before["mask_prototypes"], rtol=2e-2, atol=2e-3)


def test_without_the_guard_the_same_graph_overflows(model: onnx.ModelProto, feeds: list[Feeds], tmp_path: Path) -> None:
    scaled(model, 2.0**16)
    types = tensor_types(model)
    names = {node.name for node in model.graph.node if {f"{FIRST}.weight", f"{SECOND}.weight"} & set(node.input)}
    halved = {node.name: half_inputs(node, types, model) for node in model.graph.node if node.name in names}
    session = saved(with_half_nodes(model, {name: inputs for name, inputs in halved.items() if inputs}, types), tmp_path)
    outputs = session.run(feeds[0]["images"], 4, feeds[0]["tile_bonus"])
    assert not np.isfinite(outputs["mask_prototypes"]).all()


def test_a_graph_whose_regions_are_unknown_is_refused(model: onnx.ModelProto, feeds: list[Feeds]) -> None:
    for node in model.graph.node:
        del node.metadata_props[:]
    with pytest.raises(ModelError, match="pinned region"):
        convert(model, Plan(half=True), feeds)
