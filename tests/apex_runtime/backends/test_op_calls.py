"""What a graph asks of our ops is read off its nodes, without what its functions hold."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import helper

from apex_runtime.backends.op_calls import OpCall, op_calls


def model_of(*nodes: onnx.NodeProto, functions: list[onnx.FunctionProto] | None = None) -> onnx.ModelProto:
    return helper.make_model(helper.make_graph(list(nodes), "calls", [], []), functions=functions or [])


def node(name: str, domain: str = "apex", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(name, ["x"], ["y"], domain=domain, **attributes)


def test_attributes_namespace_and_version_are_those_of_the_node() -> None:
    said = node("TilePack", tile=16, halo=8, plugin_namespace="apex", plugin_version="3")
    silent = node("DecodeNMS", score=0.5, labels=[1, 2])
    assert op_calls(model_of(said, silent, node("Relu", domain=""))) == (
        OpCall("DecodeNMS", "apex", "1", (("labels", "other"), ("score", "float")), body=False),
        OpCall("TilePack", "apex", "3", (("halo", "int"), ("tile", "int")), body=False),
    )


def test_calls_that_say_the_same_are_counted_and_others_stand_beside_them() -> None:
    body = helper.make_function("apex", "TilePack", ["x"], ["y"], [], [helper.make_opsetid("", 20)])
    calls = op_calls(model_of(node("TilePack", tile=16), node("TilePack", tile=32), node("TilePack"), functions=[body]))
    assert [(call.attributes, call.count, call.body) for call in calls] == [((), 1, True), ((("tile", "int"),), 2, True)]


def test_the_tiny_model_calls_its_one_op(tiny_onnx: Path) -> None:
    assert [(call.name, call.version, call.body) for call in op_calls(onnx.load(tiny_onnx))] == [("SelectionKey", "1", True)]
