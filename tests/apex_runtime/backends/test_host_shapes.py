"""The graph that goes to ONNX Runtime on a GPU: the same numbers, and none of them crosses between host and device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from cuda_copies import copied_tensors
from onnx import TensorProto, helper, inliner

from apex_runtime.backends.host_shapes import fix_known_sides, shape_input, with_shape_inputs
from apex_runtime.backends.node_placement import name_nodes
from apex_runtime.engine import default_engine

CPU = ["CPUExecutionProvider"]


@pytest.fixture(scope="module")
def shipped() -> onnx.ModelProto:
    """The engine that comes along."""
    return onnx.load(default_engine() / "model.onnx")


def test_nothing_is_copied_between_host_and_device(shipped: onnx.ModelProto, tmp_path: Path) -> None:
    as_exported = inliner.inline_local_functions(shipped)
    for index, node in enumerate(as_exported.graph.node):
        node.name = f"node{index}"
    assert len(copied_tensors(as_exported.SerializeToString(), tmp_path)) > 9, "otherwise this test shows nothing"
    assert copied_tensors(name_nodes(shipped).data, tmp_path), "the numbers of tiles alone are reason enough"
    assert not copied_tensors(name_nodes(with_shape_inputs(shipped, ["tiles"])).data, tmp_path)


@pytest.mark.parametrize("tiles", [1, 16, 64])
def test_the_changed_graph_gives_the_same_to_the_last_bit(shipped: onnx.ModelProto, tiles: int) -> None:
    images = np.random.default_rng(tiles).integers(0, 256, (2, 512, 512, 3), np.uint8)
    common = {"images": images, "tile_bonus": np.zeros((2, 64), np.float32)}
    feeds = common | {"tiles": np.array([tiles])}, common | {shape_input("tiles"): np.zeros(tiles, np.uint8)}
    graphs = shipped.SerializeToString(), name_nodes(with_shape_inputs(shipped, ["tiles"])).data
    wanted, found = (
        onnxruntime.InferenceSession(graph, providers=CPU).run(None, feed) for graph, feed in zip(graphs, feeds, strict=True)
    )
    for one, other in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_tiles_of_a_finer_level_are_an_empty_input() -> None:
    """``tiles_1`` may be 0."""
    number = helper.make_tensor_value_info("tiles_1", TensorProto.INT64, [1])
    twice = helper.make_tensor_value_info("twice", TensorProto.INT64, [1])
    graph = helper.make_graph([helper.make_node("Add", ["tiles_1", "tiles_1"], ["twice"])], "g", [number], [twice])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    changed = with_shape_inputs(model, ["tiles_1"])
    onnx.checker.check_model(changed)
    session = onnxruntime.InferenceSession(changed.SerializeToString(), providers=CPU)
    for count in (0, 5):
        assert session.run(None, {shape_input("tiles_1"): np.zeros(count, np.uint8)})[0].tolist() == [2 * count]
    assert [value.name for value in model.graph.input] == ["tiles_1"], "the model that was given is left alone"


def test_only_sides_that_are_known_become_constants() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 48, 64])
    outputs = [helper.make_tensor_value_info(name, TensorProto.INT64, []) for name in ("batch", "height", "beyond")]
    nodes = [helper.make_node("Shape", ["x"], ["shape"])]
    for place, value in zip((0, 2, 7), outputs, strict=True):
        nodes.append(helper.make_node("Constant", [], [f"at{place}"], value_int=place))
        nodes.append(helper.make_node("Gather", ["shape", f"at{place}"], [value.name], name=value.name))
    flat = helper.make_model(helper.make_graph(nodes, "g", [x], outputs), opset_imports=[helper.make_opsetid("", 20)])
    fix_known_sides(flat)
    kinds = {node.output[0]: node.op_type for node in flat.graph.node}
    assert (kinds["batch"], kinds["height"], kinds["beyond"]) == ("Gather", "Constant", "Gather")
    (height,) = (node for node in flat.graph.node if node.output[0] == "height")
    assert height.attribute[0].i == 48 and height.name == "height"


@pytest.mark.parametrize(("of", "place"), [({"start": 1}, 1), ({"end": 3}, 2), ({}, -1)], ids=["start", "end", "negative"])
def test_a_part_of_a_shape_and_a_place_from_its_end_are_left_alone(of: dict[str, int], place: int) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 48, 64])
    side = helper.make_tensor_value_info("side", TensorProto.INT64, [])
    nodes = [helper.make_node("Shape", ["x"], ["shape"], **of), helper.make_node("Constant", [], ["at"], value_int=place)]
    nodes.append(helper.make_node("Gather", ["shape", "at"], ["side"]))
    flat = helper.make_model(helper.make_graph(nodes, "g", [x], [side]), opset_imports=[helper.make_opsetid("", 20)])
    fix_known_sides(flat)
    assert [node.op_type for node in flat.graph.node] == ["Shape", "Constant", "Gather"]
