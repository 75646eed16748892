"""Two optimisers of ONNX Runtime that give wrong results: each shown at work in a bare session, and kept from it in ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from apex_runtime.backends.optimiser_guard import BIAS_ROUNDING, RELU_REWRITE, disabled_optimizers
from apex_runtime.backends.ort import OrtSession, open_session, session_options

FP8 = TensorProto.FLOAT8E4M3FN
ON_CPU = ["CPUExecutionProvider"]
MENDED = (
    f"ONNX Runtime {onnxruntime.__version__} gives the right result without the guard: the fault seen in 1.32 is mended. "
    "The guard in apex_runtime/backends/optimiser_guard.py may go once no older version is supported."
)


def model_of(
    nodes: Sequence[onnx.NodeProto], kind: int, weights: Sequence[onnx.TensorProto], shape: Sequence[int | str]
) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, kind, shape) for name in "xy"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def constant(name: str, value: np.ndarray | float | int, kind: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value).astype(helper.tensor_dtype_to_np_dtype(kind)), name)


def rounding(kind: int, scale: int = TensorProto.FLOAT, source: str = "r") -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Tensor ``source`` in codes of type ``kind`` and back, as d."""
    nodes = [
        helper.make_node("QuantizeLinear", [source, "s", "z"], ["c"]),
        helper.make_node("DequantizeLinear", ["c", "s", "z"], ["d"]),
    ]
    return nodes, [constant("s", 0.01, scale), constant("z", 0, kind)]


def relu_graph(kind: int) -> onnx.ModelProto:
    nodes, weights = rounding(kind)
    relu, end = helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Identity", ["d"], ["y"])
    return model_of([relu, *nodes, end], TensorProto.FLOAT, weights, ["n"])


X = np.linspace(-2, 2, 41).astype(np.float32)


def bare(model: onnx.ModelProto, x: np.ndarray, off: Sequence[str] = ()) -> np.ndarray:
    options = session_options(1)
    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=ON_CPU, disabled_optimizers=list(off))
    return np.asarray(session.run(None, {"x": x})[0])


def ours(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = open_session(Path("m.onnx"), model.SerializeToString(), session_options(1), ON_CPU)
    return np.asarray(session.run(None, {"x": x})[0])


def test_a_bare_session_loses_the_relu_before_fp8() -> None:
    found = bare(relu_graph(FP8), X)
    assert found.min() < -1.9, MENDED


def test_the_guard_keeps_the_relu_before_fp8() -> None:
    model = relu_graph(FP8)
    assert RELU_REWRITE in disabled_optimizers(model.SerializeToString())
    found = ours(model, X)
    assert (found[X <= 0] == 0).all(), "a Relu"
    np.testing.assert_allclose(found[X > 0], X[X > 0], rtol=1 / 16 + 1e-6)
    np.testing.assert_array_equal(found, ReferenceEvaluator(model).run(None, {"x": X})[0])


@pytest.mark.parametrize("kind", [FP8, TensorProto.FLOAT8E5M2])
def test_every_way_of_naming_fp8_is_seen(kind: int) -> None:
    """By the zero point, a constant node, the attribute alone, in a branch, and in a function."""
    model = relu_graph(kind)
    assert model.graph.initializer[-1].data_type == kind
    by_node = relu_graph(kind)
    del by_node.graph.initializer[-1]
    by_node.graph.node.insert(0, helper.make_node("Constant", [], ["z"], value=constant("z", 0, kind)))
    by_attribute = relu_graph(kind)
    del by_attribute.graph.node[1].input[2]
    by_attribute.graph.node[1].attribute.append(helper.make_attribute("output_dtype", kind))
    in_branch = relu_graph(kind)
    branch = helper.make_graph(list(by_node.graph.node), "then", [], [helper.make_tensor_value_info("y", 1, ["n"])])
    del in_branch.graph.node[:], in_branch.graph.initializer[-1]
    in_branch.graph.node.append(helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch))
    in_function = onnx.ModelProto()
    in_function.functions.append(
        helper.make_function("apex", "F", ["x"], ["y"], by_node.graph.node, [helper.make_opsetid("", 20)])
    )
    for item in (model, by_node, by_attribute, in_branch, in_function):
        assert disabled_optimizers(item.SerializeToString()) == [RELU_REWRITE, BIAS_ROUNDING]


CHANNELS = 8
STEP = 0.04  # between two codes of the convolution's result


def conv_graph(scale_type: int, code_type: int = TensorProto.INT8) -> onnx.ModelProto:
    """A convolution from codes to codes with rounded weights and a bias, all in the type of the scales."""
    random = np.random.default_rng(1)
    nodes, weights = rounding(code_type, scale_type, source="x")
    nodes += [
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
        helper.make_node("Conv", ["d", "wd", "b"], ["v"], name="conv"),
        helper.make_node("QuantizeLinear", ["v", "vs", "z"], ["vc"]),
        helper.make_node("DequantizeLinear", ["vc", "vs", "z"], ["y"]),
    ]
    weights += [
        constant("vs", STEP, scale_type),
        constant("w", random.integers(-100, 100, size=(CHANNELS, CHANNELS, 1, 1)), TensorProto.INT8),
        constant("ws", random.uniform(1e-4, 3e-3, CHANNELS), scale_type),
        constant("wz", np.zeros(CHANNELS), TensorProto.INT8),
        constant("b", random.normal(size=CHANNELS), scale_type),
    ]
    return model_of(nodes, scale_type, weights, [1, CHANNELS, 4, 4])


def conv_input(dtype: type) -> np.ndarray:
    return np.random.default_rng(2).uniform(-1, 1, size=(1, CHANNELS, 4, 4)).astype(dtype)


def steps_beside_reference(model: onnx.ModelProto, found: np.ndarray, x: np.ndarray) -> float:
    """How many steps the result is off at most."""
    wanted = np.asarray(ReferenceEvaluator(model).run(None, {"x": x})[0]).astype(np.float64)
    assert len(np.unique(wanted)) > 30, "numbers all over the range"
    return float(np.abs(found.astype(np.float64) - wanted).max() / STEP)


def test_a_bare_session_ruins_a_bias_whose_scales_are_float16() -> None:
    model, x = conv_graph(TensorProto.FLOAT16), conv_input(np.float16)
    assert steps_beside_reference(model, bare(model, x), x) > 5, MENDED


def test_the_guard_leaves_that_bias_alone() -> None:
    model, x = conv_graph(TensorProto.FLOAT16), conv_input(np.float16)
    assert disabled_optimizers(model.SerializeToString()) == [BIAS_ROUNDING]
    assert steps_beside_reference(model, ours(model, x), x) < 1.1, "rounded the other way at most"


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.INT8])
def test_codes_with_scales_in_float32_are_not_slowed(kind: int) -> None:
    model = conv_graph(TensorProto.FLOAT, kind)
    model.graph.initializer[1].CopyFrom(constant("z", 0 if kind == TensorProto.INT8 else 128, kind))
    x = conv_input(np.float32)
    assert disabled_optimizers(model.SerializeToString()) == []
    assert steps_beside_reference(model, bare(model, x), x) < 1.1, "no guard is needed"


def test_a_graph_that_is_not_rounded_is_left_to_all_optimisers(tiny_onnx: Path) -> None:
    assert disabled_optimizers(tiny_onnx.read_bytes()) == []


def test_a_session_of_a_model_passes_the_guard_on(tiny_onnx: Path, tmp_path: Path) -> None:
    """The tiny model with its Relu rounded to FP8: what a bare session makes of it is something else."""
    model = onnx.load(tiny_onnx)
    place = next(index for index, node in enumerate(model.graph.node) if "positive" in node.input)
    nodes, weights = rounding(FP8, source="positive")
    for offset, node in enumerate(nodes):
        model.graph.node.insert(place + offset, node)
    for index, name in enumerate(model.graph.node[place + 2].input):
        model.graph.node[place + 2].input[index] = "d" if name == "positive" else name
    model.graph.initializer.extend(weights)
    onnx.save(model, tmp_path / "fp8.onnx")
    images = np.random.default_rng(4).integers(0, 256, size=(1, 128, 128, 3), dtype=np.uint8)
    bonus = np.zeros((1, 16), np.float32)
    feeds = {"images": images, "tiles": np.array([16]), "tile_bonus": bonus}
    guarded = OrtSession(tmp_path / "fp8.onnx", 1).run(images, 16, bonus)
    expected = ["utilities", "boxes"]
    plain = onnxruntime.InferenceSession(
        model.SerializeToString(), session_options(1), providers=ON_CPU, disabled_optimizers=[RELU_REWRITE, BIAS_ROUNDING]
    )
    faulty = onnxruntime.InferenceSession(model.SerializeToString(), session_options(1), providers=ON_CPU)
    for name, right, wrong in zip(expected, plain.run(expected, feeds), faulty.run(expected, feeds), strict=True):
        np.testing.assert_array_equal(guarded[name], right)
        assert name == "utilities" or not np.allclose(guarded[name], wrong), MENDED
