"""Rounded graphs: names, types, weights; numbers against the reference evaluator of ONNX, and the traps of small scales."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from apex_runtime.backends.ort import open_session, session_options
from apex_runtime.precision.half_graph import with_half_nodes
from apex_runtime.precision.number_formats import FORMATS, Name
from apex_runtime.precision.placement import place
from apex_runtime.precision.quantised_graph import steps_of, with_rounded_nodes
from apex_runtime.precision.ranges import Range, collect_ranges
from apex_runtime.precision.regions import SCOPE_KEY
from apex_runtime.precision.tensor_types import half_inputs, tensor_types

CHANNELS = 16


def two_convolutions(small: float = 1.0, dead_bias: float = 0.0) -> onnx.ModelProto:
    """Conv, Relu, Conv and a sum with what the Relu gives. ``small``: of the tensor between; ``dead_bias``: of a channel without
    weights."""
    random = np.random.default_rng(11)
    arrays = {
        "w1": random.normal(size=(CHANNELS, CHANNELS, 3, 3)) * small / 12,
        "b1": random.normal(size=CHANNELS) * small,
        "w2": random.normal(size=(CHANNELS, CHANNELS, 1, 1)) / 4,
        "b2": random.normal(size=CHANNELS) * small,
    }
    if dead_bias:
        arrays["w1"][3] = 0
        arrays["b1"][3] = dead_bias
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "w2", "b2"], ["c"], name="second"),
        helper.make_node("Add", ["r", "c"], ["y"], name="sum"),
    ]
    for node in nodes:
        node.metadata_props.add(key=SCOPE_KEY, value=f"['', 'detector.foveal', '{node.name}']")
    weights = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, CHANNELS, 6, 6]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def data(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(1, CHANNELS, 6, 6)).astype(np.float32)


def rounded(model: onnx.ModelProto, name: Name, half: bool = False) -> onnx.ModelProto:
    placement = place(model, frozenset(node.name for node in model.graph.node), result_too=name == "uint8")
    calibration = collect_ranges(model, [], ({"x": data(seed)} for seed in range(4)), placement.tensors)
    before = model
    if half:
        types = tensor_types(model)
        halved = {node.name: half_inputs(node, types, model) or () for node in model.graph.node}
        before = with_half_nodes(model, halved, types)
    changed = with_rounded_nodes(before, model, placement, calibration.quantised, FORMATS[name])
    onnx.checker.check_model(changed, full_check=True)
    return changed


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = open_session(Path("m.onnx"), model.SerializeToString(), session_options(1), ["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def error(model: onnx.ModelProto, other: np.ndarray, x: np.ndarray) -> float:
    wanted = run(model, x)
    return float(np.linalg.norm(other - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", ["uint8", "int8", "fp8"])
def test_onnxruntime_agrees_with_the_reference_of_onnx(name: Name, half: bool) -> None:
    model = two_convolutions()
    changed, x = rounded(model, name, half), data()
    reference = np.asarray(ReferenceEvaluator(changed).run(None, {"x": x})[0])
    found = run(changed, x)
    assert np.linalg.norm(found - reference) / np.linalg.norm(reference) < (0.01 if half or name != "fp8" else 1e-5)
    assert 1e-3 < error(model, found, x) < {"uint8": 0.02, "int8": 0.02, "fp8": 0.05}[name]


@pytest.mark.parametrize("name", ["uint8", "int8", "fp8"])
def test_names_are_unique_and_old_ones_stay(name: Name) -> None:
    model = two_convolutions()
    changed = rounded(model, name)
    names = [node.name for node in changed.graph.node]
    outputs = [output for node in changed.graph.node for output in node.output]
    constants = [tensor.name for tensor in changed.graph.initializer]
    for items in (names, outputs + constants):
        assert len(items) == len(set(items))
    kept = [node for node in changed.graph.node if node.op_type not in ("QuantizeLinear", "DequantizeLinear")]
    assert [(node.name, list(node.output)) for node in kept] == [(node.name, list(node.output)) for node in model.graph.node]
    assert all(any(prop.key == SCOPE_KEY for prop in node.metadata_props) for node in changed.graph.node)
    used = {item for node in changed.graph.node for item in node.input}
    assert set(constants) <= used, "no weight is left that nobody reads"


def test_a_tensor_is_rounded_once_for_all_who_read_it() -> None:
    changed = rounded(two_convolutions(), "int8")
    rounders = [node for node in changed.graph.node if node.op_type == "QuantizeLinear"]
    assert sorted(node.input[0] for node in rounders) == ["r", "x"]
    readers = [node.name for node in changed.graph.node if "r.rounded" in node.input]
    assert readers == ["second", "sum"]


def test_tensors_of_one_group_have_one_scale() -> None:
    model = two_convolutions()
    ranges = {"x": Range(-1, 1), "r": Range(0, 4), "c": Range(-3, 2)}
    placement = place(model, frozenset(node.name for node in model.graph.node), result_too=True)
    assert set(placement.tensors) == {"x", "r", "c"}
    steps = steps_of(placement, ranges, FORMATS["uint8"])
    assert steps["x"].scale == pytest.approx(2 / 255) and steps["x"].zero_point in (127, 128)
    assert steps["r"].scale == steps["c"].scale == pytest.approx(5 / 255), "that of the wider one"
    assert (steps["r"].zero_point, steps["c"].zero_point) == (0, 153)


@pytest.mark.parametrize("name", ["uint8", "int8", "fp8"])
def test_numbers_as_small_as_1e_9_are_rounded_like_others(name: Name) -> None:
    model, x = two_convolutions(small=1e-9), data()
    assert 1e-3 < error(model, run(rounded(model, name), x), x) < 0.05


@pytest.mark.parametrize("name", ["uint8", "int8"])
def test_the_bias_of_a_channel_without_weights_survives(name: Name) -> None:
    """Its scale would be so small that the bias runs out of 32 bits, and ONNX Runtime makes it 0."""
    model, x = two_convolutions(dead_bias=40.0), data()
    before = run(model, x)
    np.testing.assert_allclose(run(rounded(model, name), x)[0, :, 1:-1, 1:-1], before[0, :, 1:-1, 1:-1], atol=1.5)
    changed = rounded(model, name)
    scale = {tensor.name: numpy_helper.to_array(tensor) for tensor in changed.graph.initializer}
    for product, bias in (("first", "b1"), ("second", "b2")):
        node = next(item for item in changed.graph.node if item.name == product)
        if node.input[1].endswith(".rounded"):
            step = (
                scale[node.input[0].removesuffix(".rounded") + ".scale"]
                * scale[node.input[1].removesuffix(".rounded") + ".scale"]
            )
            assert (np.abs(scale[bias]) / step < 2**31 - 1).all()


def test_float16_tensors_have_float16_scales_that_do_not_saturate() -> None:
    """Rounded up where float16 cannot say them, for ranges of all sizes that may be float16."""
    model = two_convolutions()
    types = tensor_types(model)
    half = with_half_nodes(model, {node.name: half_inputs(node, types, model) or () for node in model.graph.node}, types)
    placement = place(model, frozenset(node.name for node in model.graph.node), result_too=False)
    for largest in np.geomspace(1e-3, 3e4, 40):
        ranges = dict.fromkeys(placement.tensors, Range(0.0, float(largest)))
        changed = with_rounded_nodes(half, model, placement, ranges, FORMATS["fp8"])
        scales = {item.name: numpy_helper.to_array(item) for item in changed.graph.initializer if item.name.endswith(".scale")}
        assert len(scales) == 4 and {array.dtype for array in scales.values()} == {np.dtype(np.float16)}
        for name in ("x.float16.scale", "r.scale"):
            assert largest <= float(scales[name]) * 448 < largest * 1.05
    kinds = {item.data_type for item in changed.graph.initializer if item.name.endswith((".codes", ".zero_point"))}
    assert kinds == {TensorProto.FLOAT8E4M3FN}


def test_a_weight_that_is_float16_and_rounded_comes_from_the_original() -> None:
    """Not from the one that was rounded to float16 before."""
    half, full = (rounded(two_convolutions(), "int8", half=value) for value in (True, False))
    codes = [
        next(numpy_helper.to_array(item) for item in model.graph.initializer if item.name == "w1.first.codes")
        for model in (half, full)
    ]
    assert codes[0].dtype == np.int8 and np.mean(codes[0] != codes[1]) < 0.02


@pytest.mark.parametrize(("trans_b", "axis"), [(0, 1), (1, 0)])
def test_gemm_is_rounded_along_its_output_channels(trans_b: int, axis: int) -> None:
    shape = (6, 5) if trans_b else (5, 6)
    weight = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    weight *= np.moveaxis(np.geomspace(1, 1e-4, 6, dtype=np.float32).reshape(6, 1), 0, axis)
    node = helper.make_node("Gemm", ["x", "w"], ["y"], name="gemm", transB=trans_b)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, size]) for name, size in (("x", 5), ("y", 6))]
    graph = helper.make_graph([node], "g", values[:1], values[1:], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    placement = place(model, frozenset(["gemm"]), result_too=False)
    changed = with_rounded_nodes(model, model, placement, {"x": Range(-1, 1)}, FORMATS["int8"])
    onnx.checker.check_model(changed, full_check=True)
    x = np.random.default_rng(2).uniform(-1, 1, size=(2, 5)).astype(np.float32)
    before, after = run(model, x), run(changed, x)
    errors = np.linalg.norm(after - before, axis=0) / np.linalg.norm(before, axis=0)
    assert (errors < 0.05).all(), "channels of a ten-thousandth are as good as the others"
