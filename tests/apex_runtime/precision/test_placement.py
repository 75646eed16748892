"""Where small hand-made graphs are rounded: exact edges, groups and refusals, in the habits of both runtimes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from apex_runtime.backends.ort import open_session, session_options
from apex_runtime.precision.number_formats import FORMATS
from apex_runtime.precision.placement import Placement, place
from apex_runtime.precision.quantised_graph import with_rounded_nodes
from apex_runtime.precision.ranges import collect_ranges

IN_FULL = "its result is read in full"
CHANNELS = 16
LINES = {
    # after Relu, so that codes begin at 0: what backbones are made of
    "residual": ("x > a", "a r> b", "b > c", "b c + d", "d r d2", "d2 > y"),
    "block": ("x > a", "a r> b", "b > c", "b c + d", "d r d2", "d2 > e", "e > y"),
    "chain": ("x r> a", "a r> b", "b > y"),
    "concat": ("x r> a", "x r> b", "a b cat c", "c > d", "d > y"),
    "depthwise": ("x dw a", "a > b", "b > y"),
    "pinned_reader": ("x r> a", "a > b", "a neg p", "b p + y"),
    "side_reader": ("x r> a", "a r> b", "b r> c", "c > d", "b neg p", "d p + y"),
    "two_products": ("x > a", "x > b", "a b + c", "c > y"),
    "two_outputs": ("x > a", "a > y", "a r z"),
}


def weight(name: str, *shape: int) -> onnx.TensorProto:
    values = np.random.default_rng(len(name) + sum(shape)).normal(size=shape) / np.sqrt(np.prod(shape[1:]))
    return numpy_helper.from_array(values.astype(np.float32), name)


def graph(name: str, outputs: Collection[str] = ("y",)) -> onnx.ModelProto:
    """From lines "input > output": a convolution; "r>" one with a Relu behind it, "dw" of channels; others are ops by name."""
    nodes, weights = [], []
    ops = {"r": "Relu", "+": "Add", "cat": "Concat", "neg": "Neg"}
    for line in LINES[name]:
        *inputs, op, output = line.split()
        if op in (">", "r>", "dw"):
            groups = CHANNELS if op == "dw" else 1
            weights += [weight(f"w.{output}", CHANNELS, _reads(inputs[0], name) // groups, 1, 1), weight(f"b.{output}", CHANNELS)]
            result = f"{output}.full" if op == "r>" else output
            feeds = [*inputs, f"w.{output}", f"b.{output}"]
            nodes.append(helper.make_node("Conv", feeds, [result], name=f"conv.{output}", group=groups))
            if op == "r>":
                nodes.append(helper.make_node("Relu", [result], [output], name=f"relu.{output}"))
        else:
            extra = {"axis": 1} if op == "cat" else {}
            nodes.append(helper.make_node(ops[op], inputs, [output], name=f"{ops[op].lower()}.{output}", **extra))
    return model_of(nodes, weights, outputs, [1, CHANNELS, 3, 3])


def _reads(tensor: str, name: str) -> int:
    """Channels of a tensor: a join has two times as many."""
    return CHANNELS * (2 if any(line.endswith(f"cat {tensor}") for line in LINES[name]) else 1)


def model_of(
    nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], outputs: Collection[str], shape: list[int]
) -> onnx.ModelProto:
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    made = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)], given, weights)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def placed(model: onnx.ModelProto, result_too: bool, without: Collection[str] = (), sixteens: bool = False) -> Placement:
    names = frozenset(node.name for node in model.graph.node) - set(without)
    return place(model, names, result_too, sixteens)


def edges(placement: Placement) -> set[str]:
    """Edges as "reader:number tensor"."""
    return {f"{node}:{index} {tensor}" for (node, index), tensor in placement.edges.items()}


def groups(placement: Placement) -> set[frozenset[str]]:
    return set(map(frozenset, placement.groups))


def test_the_habit_of_onnxruntime_rounds_both_inputs_of_a_residual_sum() -> None:
    placement = placed(graph("residual"), result_too=True)
    assert placement.products == {"conv.a", "conv.b", "conv.c"}
    wanted = {"conv.a:0 x", "conv.b:0 a", "conv.c:0 b", "add.d:0 b", "add.d:1 c"}
    assert edges(placement) == wanted, "the last convolution gives y in full, so what it reads is not rounded either"
    assert groups(placement) == {frozenset("x"), frozenset("a"), frozenset("bc")}
    assert placement.refused == {"conv.y": IN_FULL} and placement.sums == frozenset(), "the sum is read in full"
    assert sorted(placement.tensors) == ["a", "b", "c", "x"]


def test_a_sum_between_products_computes_in_eight_bits() -> None:
    placement = placed(graph("block"), result_too=True)
    assert placement.products == {"conv.a", "conv.b", "conv.c", "conv.e"} and placement.sums == {"add.d"}
    assert {"conv.e:0 d2", "conv.y:0 e"} <= edges(placement)
    assert placement.refused == {"conv.y": IN_FULL}


def test_the_habit_of_tensorrt_rounds_only_the_input_that_skips() -> None:
    placement = placed(graph("residual"), result_too=False)
    assert placement.products == {"conv.a", "conv.b", "conv.c", "conv.y"} and not placement.refused
    assert edges(placement) == {"conv.a:0 x", "conv.b:0 a", "conv.c:0 b", "add.d:0 b", "conv.y:0 d2"}
    assert all(len(group) == 1 for group in placement.groups) and placement.sums == frozenset()


def test_of_two_products_tensorrt_joins_the_sum_to_the_later_one() -> None:
    assert edges(placed(graph("two_products"), result_too=False)) == {"conv.a:0 x", "conv.b:0 x", "add.c:0 a", "conv.y:0 c"}
    shared = graph("two_products", ("y", "b"))
    shared.graph.node.insert(2, helper.make_node("Neg", ["b"], ["n"], name="neg.n"))
    assert "add.c:1 b" in edges(placed(shared, result_too=False)), "where another reads the later one, too, it is the first"


@pytest.mark.parametrize("result_too", [True, False])
def test_of_a_chain_only_the_last_can_be_refused(result_too: bool) -> None:
    """The refusal of one product is no reason to refuse the one before it."""
    placement = placed(graph("chain"), result_too)
    assert placement.products == {"conv.a", "conv.b"} | (set() if result_too else {"conv.y"})
    assert edges(placement) == {"conv.a:0 x", "conv.b:0 a", "conv.y:0 b"}


def test_a_join_shares_one_scale_with_its_result() -> None:
    for result_too in (True, False):
        placement = placed(graph("concat"), result_too)
        assert {"concat.c:0 a", "concat.c:1 b", "conv.d:0 c"} <= edges(placement)
        assert frozenset("abc") in groups(placement) and placement.sums == {"concat.c"}


def test_depthwise_convolutions_are_products_but_not_in_fp8() -> None:
    assert "conv.a" in placed(graph("depthwise"), result_too=True).products
    placement = placed(graph("depthwise"), result_too=False, sixteens=True)
    assert placement.products == {"conv.b", "conv.y"} and "sixteens" in placement.refused["conv.a"]
    grouped = helper.make_node("Conv", ["x", "w"], ["y"], name="grouped", group=2)
    model = model_of([grouped], [weight("w", 32, 16, 1, 1)], ["y"], [1, 32, 3, 3])
    assert placed(model, result_too=False).products == {"grouped"}
    assert "sixteens" in placed(model, result_too=False, sixteens=True).refused["grouped"], "nor are there any for groups"


def test_a_graph_output_keeps_its_product_from_eight_bits() -> None:
    placement = placed(graph("residual", ("y", "b")), result_too=True)
    assert placement.refused["conv.b"] == IN_FULL and "conv.a" in placement.products
    assert not [edge for edge in edges(placement) if edge.startswith("conv.y")]
    free = placed(graph("residual", ("y", "b")), result_too=False)
    assert free.products == {"conv.a", "conv.b", "conv.c", "conv.y"} and not free.refused


@pytest.mark.parametrize("pinned", ["neg.p", "relu.a"])
def test_a_pinned_reader_keeps_its_tensor(pinned: str) -> None:
    """One that reads the result, and the Relu that a runtime would fold into the product."""
    placement = placed(graph("pinned_reader"), result_too=True, without=[pinned])
    assert "conv.a" not in placement.products and placement.refused["conv.a"] == IN_FULL
    for habit in (True, False):
        found = placed(graph("pinned_reader"), habit, without=[pinned])
        assert not [node for node, _ in found.edges if node == pinned]


def test_what_is_no_candidate_is_not_mentioned() -> None:
    placement = placed(graph("residual"), result_too=False, without=["conv.b", "add.d"])
    assert placement.products == {"conv.a", "conv.c", "conv.y"}
    assert not placement.refused and {node for node, _ in placement.edges} == placement.products


def matrices() -> onnx.ModelProto:
    """x [2,16] through MatMul, Gemm with the weight turned, MatMul of two results, and MatMul with a weight on the left."""
    nodes = [
        helper.make_node("MatMul", ["x", "m"], ["a"], name="matmul"),
        helper.make_node("Gemm", ["a", "g", "gb"], ["b"], name="gemm", transB=1),
        helper.make_node("Transpose", ["b"], ["bt"], name="turn"),
        helper.make_node("MatMul", ["b", "bt"], ["c"], name="both"),
        helper.make_node("MatMul", ["left", "c"], ["y"], name="left"),
    ]
    weights = [weight("m", 16, 32), weight("g", 24, 32), weight("gb", 24), weight("left", 3, 2)]
    return model_of(nodes, weights, ["y"], [2, 16])


def test_matrix_products_need_data_and_a_weight() -> None:
    placement = placed(matrices(), result_too=False)
    assert placement.products == {"matmul", "gemm"} and edges(placement) == {"matmul:0 x", "gemm:0 a"}
    assert placement.refused == dict.fromkeys(("both", "left"), "its second input is no weight")
    assert placed(matrices(), result_too=False, sixteens=True).products == {"matmul"}, "24 channels are no sixteens"
    assert placed(matrices(), result_too=True).products == {"matmul"}, "what attention multiplies is read in full"


def test_two_convolutions_with_one_weight_are_two_products() -> None:
    model = graph("chain")
    model.graph.node[2].input[1] = model.graph.node[0].input[1]
    placement = placed(model, result_too=False)
    assert placement.products == {"conv.a", "conv.b", "conv.y"}
    rounded = rounded_as(model, placement, "int8")
    kinds = [tensor for tensor in rounded.graph.initializer if tensor.name.startswith("w.") and tensor.name.endswith(".codes")]
    assert len(kinds) == 3 and not [tensor for tensor in rounded.graph.initializer if tensor.name == "w.a"]


def rounded_as(model: onnx.ModelProto, placement: Placement, name: str) -> onnx.ModelProto:
    shape = [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim]
    feeds = [{"x": np.random.default_rng(seed).normal(size=shape).astype(np.float32)} for seed in range(3)]
    found = collect_ranges(model, [], feeds, placement.tensors)
    changed = with_rounded_nodes(model, model, placement, found.quantised, FORMATS[name])  # type: ignore[index]
    onnx.checker.check_model(changed, full_check=True)
    return changed


def executed(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """The graph that ONNX Runtime makes of a model."""
    options = session_options(1)
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    open_session(folder, model.SerializeToString(), options, ["CPUExecutionProvider"])
    return onnx.load(folder / "optimised.onnx")


@pytest.mark.parametrize(
    ("name", "without"),
    [
        *[(name, []) for name in ("residual", "block", "chain", "concat", "depthwise", "pinned_reader", "two_outputs")],
        ("side_reader", ["neg.p"]),
        ("block", ["conv.c"]),
    ],
)
def test_onnxruntime_computes_what_the_placement_says(name: str, without: list[str], tmp_path: Path) -> None:
    """Every product as QLinearConv, every sum as QLinearAdd or QLinearConcat, and nothing else in eight bits: neither a pinned
    product nor one whose result a pinned node reads beside others."""
    model = graph(name)
    placement = placed(model, result_too=True, without=without)
    counts = Counter(node.op_type for node in executed(rounded_as(model, placement, "uint8"), tmp_path).graph.node)
    sums = Counter(node.op_type for node in model.graph.node if node.name in placement.sums)
    assert counts["QLinearConv"] == len(placement.products) > 0
    assert (counts["QLinearAdd"], counts["QLinearConcat"]) == (sums["Add"], sums["Concat"])
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert counts["Conv"] + counts["FusedConv"] == len(convolutions) - len(placement.products)


@pytest.mark.parametrize("result_too", [True, False])
@pytest.mark.parametrize("name", sorted(LINES))
def test_rounded_graphs_say_almost_the_same(name: str, result_too: bool, tmp_path: Path) -> None:
    model = graph(name)
    placement = placed(model, result_too)
    x = np.random.default_rng(0).normal(size=(1, CHANNELS, 3, 3)).astype(np.float32)  # one of those calibrated on
    for kind in ("uint8",) if result_too else ("int8", "fp8"):
        sides = (model, rounded_as(model, placement, kind))
        before, after = (
            open_session(tmp_path, side.SerializeToString(), session_options(1), ["CPUExecutionProvider"]).run(None, {"x": x})[0]
            for side in sides
        )
        error = np.linalg.norm(after - before) / np.linalg.norm(before)
        assert 1e-4 < error < 0.08, (kind, error)
