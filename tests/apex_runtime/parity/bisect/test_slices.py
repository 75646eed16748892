"""Slices give what the whole graph gives, whatever they are cut from; and what two tensors' distance is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import parser

from apex_runtime.parity.bisect.difference import MOST, Judge
from apex_runtime.parity.bisect.names import renamed_like
from apex_runtime.parity.bisect.slices import Graph, values_of
from apex_runtime.parity.tolerance import Rules, load_profile

JUDGE = Judge(Rules(load_profile("quality"), "fp32"), 1)
TEXT = """
<ir_version: 9, opset_import: ["" : 20, "own" : 1]>
g (float[4] x, int64[1] k) => (float[a] best, float[4] end)
<float two = {2.0}, int64[1] unused = {7}>
{
  a = Mul(x, two)
  b = own.Outer(a)
  c = Add(a, b)
  best, where = TopK(c, k)
  d = Gather(c, where)
  flag = ReduceMax<keepdims = 0>(d)
  yes = Greater(flag, two)
  e = If(yes) <
    then_branch = yes_branch () => (float[4] out) { out = Add(c, a) },
    else_branch = no_branch () => (float[4] out) { out = Identity(x) }
  >
  end = Neg(e)
}
<domain: "own", opset_import: ["" : 20, "own" : 1]>
Outer (v) => (w) { u = own.Inner(v)
  w = Neg(u) }
<domain: "own", opset_import: ["" : 20]>
Inner (v) => (w) { w = Mul(v, v) }
<domain: "own", opset_import: ["" : 20]>
Idle (v) => (w) { w = Mul(v, v) }
"""
TENSORS = ("a", "b", "c", "best", "where", "d", "flag", "yes", "e", "end")
FEEDS = {"x": np.array([0.5, -1, 3, 2], np.float32), "k": np.array([2], np.int64)}


@pytest.fixture(scope="module")
def graph() -> Graph:
    return Graph(parser.parse_model(TEXT), Path("g.onnx"))


@pytest.fixture(scope="module")
def every(graph: Graph) -> dict[str, np.ndarray]:
    """All tensors by one run of the whole graph with every tensor an output, by ONNX Runtime alone."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in TENSORS)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(TENSORS, session.run(list(TENSORS), FEEDS), strict=True)) | FEEDS


@pytest.mark.parametrize("target", TENSORS)
@pytest.mark.parametrize("known", [(), ("a",), ("a", "c"), ("c", "where"), ("b", "d")])
def test_a_slice_gives_what_the_graph_gives(target: str, known: tuple[str, ...], graph: Graph, every) -> None:
    if target in known:
        return
    found = graph.run([target], {name: every[name] for name in (*FEEDS, *known)})
    assert list(found) == [target]
    np.testing.assert_array_equal(found[target], every[target])


def test_a_slice_is_no_larger_than_it_must_be(graph: Graph, every) -> None:
    model, given = graph.slice(["best", "d"], {name: every[name] for name in ("x", "k", "c", "where")})
    assert [node.op_type for node in model.graph.node] == ["TopK", "Gather"]
    assert set(given) == {"c", "k", "where"} and not model.functions and not model.graph.initializer
    assert model.graph.node[0].output[:] == ["best", "where.beside"], "no name means two things"
    model, given = graph.slice(["b"], {"a": every["a"]})
    assert {item.name for item in model.functions} == {"Outer", "Inner"}


def test_what_an_inner_graph_takes_from_outside_is_followed(graph: Graph) -> None:
    met, nodes = graph.walk(["e"], {"x", "c", "a"})
    assert met == {"x", "c", "a"}
    assert {graph.nodes[at].op_type for at in nodes} == {"If", "Greater", "ReduceMax", "Gather", "TopK"}


def test_values_are_taken_where_they_are_known(graph: Graph, every) -> None:
    stamped = every["c"] + 1
    found = values_of(graph, ["c", "d", "x"], FEEDS | {"c": stamped, "where": every["where"]})
    assert found["c"] is stamped
    np.testing.assert_array_equal(found["d"], stamped[every["where"]])


def test_a_slice_takes_numbers_in_its_own_type(every) -> None:
    text = '<ir_version: 9, opset_import: ["" : 20]> g (float16[4] x) => (float16[4] c) { a = Neg(x)  c = Add(a, a) }'
    found = Graph(parser.parse_model(text), Path("h.onnx")).run(["c"], {"a": every["d"].repeat(2)})
    assert found["c"].dtype == np.float16
    np.testing.assert_allclose(found["c"], every["d"].repeat(2) * 2, rtol=1e-3)


def test_names_are_recognised_by_what_leads_to_them() -> None:
    reference = parser.parse_model(TEXT)
    other = parser.parse_model(
        TEXT.replace("a = Mul", "first = Mul").replace("Outer(a)", "Outer(first)").replace("Add(a, b)", "Add(first, b)")
    )
    other.graph.node[-2].attribute[0].g.node[0].input[1] = "first"  # an inner graph reads it: it keeps its name
    assert renamed_like(other, reference).graph.node[0].output[0] == "first"
    plain = parser.parse_model(
        TEXT.replace("d = Gather", "taken = Gather").replace("ReduceMax<keepdims = 0>(d)", "ReduceMax<keepdims = 0>(taken)")
    )
    assert renamed_like(plain, reference).graph.node[4].output[0] == "d"
    assert plain.graph.node[4].output[0] == "taken", "the candidate itself is left alone"


def array(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("reference", "candidate", "excess"),
    [
        (array(0, 0), array(0, 2e-5), 1.0),
        (array(100, 0), array(100, 2e-3), 1.0),  # atol grows with the largest value, 100
        (array(1, -1), array(1, -1 - 4.4e-4), 2.0),
        (array(np.nan, np.inf, 1), array(np.nan, np.inf, 1), 0.0),
        (array(np.nan, 1), array(1, 1), MOST),
        (array(np.inf, 1), array(-np.inf, 1), MOST),
        (array(1, 1), array(1, np.nan), MOST),
        (array(1, 1), array(1, 1).reshape(2, 1), MOST),
        (np.array([1, 2]), np.array([1, 2]), 0.0),
        (np.array([1, 2]), np.array([1, 3]), MOST),
        (np.array([1, 2]), np.array([1, 2], np.int32), MOST),
        (array(1, 2), array(1, 2).astype(np.float16), 0.0),
        (array(), array(), 0.0),
        (np.array([1e300, 0]), np.array([1e300, 2e295]), 1.0),
    ],
)
def test_how_far_tensors_lie_apart(reference: np.ndarray, candidate: np.ndarray, excess: float) -> None:
    assert JUDGE.excess("inner", reference, candidate) == pytest.approx(excess, rel=1e-3)


def test_an_output_has_a_unit_and_its_tolerance_stays() -> None:
    assert JUDGE.excess("boxes", array(500, 0), array(500, 0.1)) == pytest.approx(2.0)


def test_the_share_that_may_mismatch_is_forgiven_but_no_nan() -> None:
    judge = Judge(Rules(load_profile("edge"), "fp32"), 1)  # 5 of 10000
    wanted, found = np.zeros(10000, np.float32), np.zeros(10000, np.float32)
    found[:5] = 1
    assert judge.excess("inner", wanted, found) == 0.0
    found[5] = 1
    assert judge.excess("inner", wanted, found) == pytest.approx(1 / 8e-5)
    found[:6] = 0
    found[0] = np.nan
    assert judge.excess("inner", wanted, found) == MOST
