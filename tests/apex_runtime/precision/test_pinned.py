"""A pass that touches what is pinned is found out. Each fault is planted in a copy of the shipped model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from apex_runtime.errors import ModelError
from apex_runtime.precision.half_graph import with_half_nodes
from apex_runtime.precision.pinned import check_untouched
from apex_runtime.precision.regions import members, regions_of
from apex_runtime.precision.tensor_types import half_inputs, tensor_types


def find(model: onnx.ModelProto, tensor: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if tensor in node.output)


def insert(model: onnx.ModelProto, before: onnx.NodeProto, *nodes: onnx.NodeProto) -> None:
    place = [node.name for node in model.graph.node].index(before.name)
    for offset, node in enumerate(nodes):
        model.graph.node.insert(place + offset, node)


def scale_a_weight(model: onnx.ModelProto) -> None:
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "detector.router.score.0.bias")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.001), weight.name))


def round_on_the_way(model: onnx.ModelProto) -> None:
    node = find(model, "log")
    down = helper.make_node("Cast", [node.input[0]], ["down"], name="down", to=TensorProto.FLOAT16)
    up = helper.make_node("Cast", ["down"], ["up"], name="up", to=TensorProto.FLOAT)
    insert(model, node, down, up)
    find(model, "log").input[0] = "up"


def read_elsewhere(model: onnx.ModelProto) -> None:
    find(model, "log").input[0] = "cat_2"


def another_op(model: onnx.ModelProto) -> None:
    find(model, "round_1").op_type = "Floor"


def another_attribute(model: onnx.ModelProto) -> None:
    node = find(model, "boxes")
    node.attribute[0].i = 1 - node.attribute[0].i


def rename_away(model: onnx.ModelProto) -> None:
    find(model, "mul_851").name = "somebody"


def quantise_prototypes(model: onnx.ModelProto) -> None:
    node = find(model, "conv2d_74")
    model.graph.initializer.extend(
        [numpy_helper.from_array(np.float32(0.1), "s"), numpy_helper.from_array(np.uint8(0), "zero_point")]
    )
    down = helper.make_node("QuantizeLinear", [node.input[0], "s", "zero_point"], ["q"], name="q")
    up = helper.make_node("DequantizeLinear", ["q", "s", "zero_point"], ["dq"], name="dq")
    insert(model, node, down, up)
    find(model, "conv2d_74").input[0] = "dq"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (scale_a_weight, "router.*another weight"),
        (round_on_the_way, "router.*rounded on its way"),
        (read_elsewhere, "router.*in place of"),
        (another_op, "selection.*something else"),
        (another_attribute, "decode.*(something else|contradicts)|contradicts"),
        (rename_away, "decode.*is gone"),
        (quantise_prototypes, "prototypes.*in place of"),
    ],
)
def test_a_touched_region_is_named(model: onnx.ModelProto, fault: Callable[[onnx.ModelProto], None], words: str) -> None:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    check_untouched(model, changed)
    fault(changed)
    with pytest.raises(ModelError, match=words):
        check_untouched(model, changed)


def halve(model: onnx.ModelProto, region: str) -> onnx.ModelProto:
    types = tensor_types(model)
    names = set(members(regions_of(model))[region])
    possible = {node.name: half_inputs(node, types, model) for node in model.graph.node if node.name in names}
    halved = {name: inputs for name, inputs in possible.items() if inputs is not None}
    assert halved
    return with_half_nodes(model, halved, types)


@pytest.mark.parametrize("region", ["router", "selection", "scan", "decode", "entrance"])
def test_float16_in_a_region_pinned_to_float32_is_refused(model: onnx.ModelProto, region: str) -> None:
    with pytest.raises(ModelError, match=rf"{region}.*the floor is float32") as caught:
        check_untouched(model, halve(model, region))
    assert caught.value.code == "pinned_region_touched"


@pytest.mark.parametrize("region", ["prototypes", "scores", "foveal"])
def test_float16_elsewhere_is_allowed(model: onnx.ModelProto, region: str) -> None:
    check_untouched(model, halve(model, region))


@pytest.mark.parametrize("how", ["lost", "changed"])
def test_a_lost_or_changed_function_is_noticed(model: onnx.ModelProto, how: str) -> None:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    if how == "lost":
        del changed.functions[0]
    else:
        changed.functions[0].node[-1].op_type = "Add"
    with pytest.raises(ModelError, match="function") as caught:
        check_untouched(model, changed)
    assert caught.value.code == "functions_changed"


def test_an_emptied_region_is_noticed(model: onnx.ModelProto) -> None:
    """Without scopes of the masks nobody knows what the prototypes are."""
    for node in model.graph.node:
        if any("detector.masks" in prop.value for prop in node.metadata_props):
            del node.metadata_props[:]
    with pytest.raises(ModelError, match="prototypes") as caught:
        check_untouched(model, model)
    assert caught.value.code == "pinned_region_empty"
