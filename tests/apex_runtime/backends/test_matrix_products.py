"""A graph without matrix products computes what it computed with them."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import parser

from apex_runtime.backends.matrix_products import without_matrix_products

GRAPH = """
<ir_version: 9, opset_import: ["" : 20, "apex" : 1]>
products (float[{a}] a, float[{b}] b) => (float[{c}] c)
{{ c = apex.Product(a, b) }}
<domain: "apex", opset_import: ["" : 20]>
Product (x, y) => (z) {{ z = MatMul(x, y) }}
"""


def run(model: onnx.ModelProto, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"a": a, "b": b})[0]


@settings(max_examples=20, deadline=None)
@given(
    batch=st.sampled_from([(), (1,), (3,), (2, 4)]),
    shared=st.booleans(),
    m=st.integers(1, 5),
    k=st.integers(1, 5),
    n=st.integers(1, 5),
)
def test_products_of_any_rank_are_the_same(batch: tuple[int, ...], shared: bool, m: int, k: int, n: int) -> None:
    """Batched, and with one right side for the whole batch as a linear layer has it; inside a local function too."""
    rng = np.random.default_rng(m * 25 + k * 5 + n)
    a = rng.standard_normal((*batch, m, k)).astype(np.float32)
    b = rng.standard_normal((k, n) if shared else (*batch, k, n)).astype(np.float32)
    shapes = {"a": a.shape, "b": b.shape, "c": (*batch, m, n)}
    model = parser.parse_model(GRAPH.format(**{name: ",".join(map(str, shape)) for name, shape in shapes.items()}))
    changed = without_matrix_products(model)
    onnx.checker.check_model(changed)
    assert not any(node.op_type in ("MatMul", "Product") for node in changed.graph.node)
    np.testing.assert_allclose(run(changed, a, b), a @ b, rtol=1e-5, atol=1e-5)
    assert any(node.op_type == "Product" for node in model.graph.node), "the original is left as it was"


@pytest.mark.parametrize(("a", "b"), [((3,), (3, 2)), ((2, 3), (3,))])
def test_products_with_a_vector_are_left_alone(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    shapes = {"a": a, "b": b, "c": (2,)}
    model = parser.parse_model(GRAPH.format(**{name: ",".join(map(str, shape)) for name, shape in shapes.items()}))
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal(a).astype(np.float32), rng.standard_normal(b).astype(np.float32)
    np.testing.assert_allclose(run(without_matrix_products(model), left, right), left @ right, rtol=1e-5, atol=1e-5)
