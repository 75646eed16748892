"""Casts where the types meet: hand-made graphs, run by ONNX Runtime and compared with NumPy that rounds at the same places."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, parser

from apex_runtime.precision.half_graph import with_half_nodes
from apex_runtime.precision.tensor_types import half_inputs, tensor_types

GRAPH = """
<ir_version: 9, opset_import: ["" : 20, "own" : 1]>
g (float[n] x, int64[1] k) => (float[n] y, float[n] z, float[m] top, int64[m] at, bool[n] big)
<float shared = {0.1}, float limit = {0.5}>
{
  a = Mul(x, shared)
  b = own.Twice(a)
  y = Add(b, shared)
  c = Add(a, shared)
  z = Exp(c)
  top, at = TopK<axis = 0>(b, k)
  big = Greater(a, limit)
}
<domain: "own", opset_import: ["" : 20]>
Twice (v) => (w)
{
  yes = Constant<value_int = 2>()
  two = CastLike(yes, v)
  w = Mul(v, two)
}
"""
HALVED = {"a", "b", "y", "top", "big"}


def made() -> onnx.ModelProto:
    model = parser.parse_model(GRAPH)
    for node in model.graph.node:
        node.name = node.output[0]
    onnx.checker.check_model(model, full_check=True)
    return model


def converted(model: onnx.ModelProto, names: set[str]) -> onnx.ModelProto:
    types = tensor_types(model)
    found = {node.name: half_inputs(node, types, model) for node in model.graph.node if node.name in names}
    return with_half_nodes(model, {name: inputs for name, inputs in found.items() if inputs is not None}, types)


def run(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"x": x, "k": np.array([3])}))


def test_the_graph_rounds_where_its_nodes_are_float16() -> None:
    x = np.linspace(-3, 9, 50, dtype=np.float32)
    y, z, top, at, big = run(converted(made(), HALVED), x)
    half = np.float16
    a = x.astype(half) * half(0.1)
    b = a * half(2)
    np.testing.assert_allclose(y, (b + half(0.1)).astype(np.float32), rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(z, np.exp(a.astype(np.float32) + np.float32(0.1)), rtol=2e-3)
    np.testing.assert_array_equal(at, np.argsort(-b, kind="stable")[:3])
    np.testing.assert_array_equal(big, a > half(0.5))
    assert {item.dtype for item in (y, z, top)} == {np.dtype(np.float32)}, "outputs keep their type"
    assert np.abs(y - (x * np.float32(0.2) + np.float32(0.1))).max() > 1e-5, "it did round"


def test_casts_are_where_the_types_meet_and_nowhere_else() -> None:
    changed = converted(made(), HALVED)
    casts = {tuple(node.input) + tuple(node.output) for node in changed.graph.node if node.op_type == "Cast"}
    assert casts == {("x", "x.float16"), ("y.float16", "y"), ("top.float16", "top"), ("a", "a.float32")}
    types = tensor_types(changed)
    assert types["a"] == types["b"] == TensorProto.FLOAT16 and types["c"] == TensorProto.FLOAT


def test_a_weight_that_both_sides_read_is_rounded_for_one_of_them_only() -> None:
    weights = {tensor.name: tensor for tensor in converted(made(), HALVED).graph.initializer}
    assert set(weights) == {"shared", "shared.float16", "limit.float16"}
    assert onnx.numpy_helper.to_array(weights["shared"]) == np.float32(0.1)
    assert onnx.numpy_helper.to_array(weights["shared.float16"]) == np.float16(0.1)


def test_neighbours_in_float32_are_not_rounded_on_their_way() -> None:
    changed = converted(made(), {"b"})
    assert [list(node.input) for node in changed.graph.node if node.name in ("c", "big")] == [["a", "shared"], ["a", "limit"]]


def test_nothing_to_halve_changes_nothing() -> None:
    before = made()
    assert with_half_nodes(before, {}, tensor_types(before)).graph.node == before.graph.node


def body_of(text: str) -> tuple[int, ...] | None:
    model = parser.parse_model(GRAPH.replace("two = CastLike(yes, v)", text))
    node = next(node for node in model.graph.node if node.op_type == "Twice")
    return half_inputs(node, dict.fromkeys(("a", "b"), TensorProto.FLOAT), model)


def test_a_function_that_names_float32_itself_cannot_follow() -> None:
    assert body_of("two = CastLike(yes, v)") == (0,)
    assert body_of("two = Cast<to = 1>(yes)") is None
    assert body_of("two = Constant<value_float = 2.0>()") is None
    assert body_of("two = Constant<value = float {2.0}>()") is None


def test_inputs_that_an_op_wants_in_float32_stay() -> None:
    """Resize takes its scales in float32 whatever it resizes; Cast fixes its own type; Range reads no float16 at all."""
    text = """
    <ir_version: 9, opset_import: ["" : 20]>
    g (float[1,1,n,n] x, float[4] scales, float s) => (float[1,1,h,w] y, float[1,1,n,n] z, float[r] w)
    { y = Resize(x, "", scales)  z = Cast<to = 1>(x)  w = Range(s, s, s) }
    """
    model = parser.parse_model(text)
    types = dict.fromkeys(("x", "scales", "s", "y", "z", "w"), int(TensorProto.FLOAT))
    assert [half_inputs(node, types, model) for node in model.graph.node] == [(0,), None, None]
