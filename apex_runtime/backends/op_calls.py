"""Which ops of ours a graph calls, read off its nodes: the contract that a plugin of TensorRT must fit."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from apex_plugins.spec import DOMAIN

if TYPE_CHECKING:
    import onnx

NAMESPACE_ATTRIBUTE, VERSION_ATTRIBUTE = "plugin_namespace", "plugin_version"


@dataclass(frozen=True)
class OpCall:
    """One way in which a graph calls an op: name, namespace and version on the node, attributes as (name, "int" | "float").

    ``body``: the file carries the op's meaning in standard ops. ``count``: how many nodes call it in this way.
    """

    name: str
    namespace: str
    version: str
    attributes: tuple[tuple[str, str], ...]
    body: bool
    count: int = 1


def op_calls(model: onnx.ModelProto) -> tuple[OpCall, ...]:
    """The calls in the main graph, sorted by name; nodes that say the same are one call."""
    bodies = {function.name for function in model.functions if function.domain == DOMAIN}
    found = Counter(_call(node, node.op_type in bodies) for node in model.graph.node if node.domain == DOMAIN)
    calls = (OpCall(*key, count=count) for key, count in found.items())
    return tuple(sorted(calls, key=lambda call: (call.name, call.version, call.attributes)))


def _call(node: onnx.NodeProto, body: bool) -> tuple[str, str, str, tuple[tuple[str, str], ...], bool]:
    import onnx

    kinds = {onnx.AttributeProto.INT: "int", onnx.AttributeProto.FLOAT: "float"}
    own, texts = [], {}
    for attribute in node.attribute:
        if attribute.name in (NAMESPACE_ATTRIBUTE, VERSION_ATTRIBUTE):
            texts[attribute.name] = attribute.s.decode()
        else:
            own.append((attribute.name, kinds.get(attribute.type, "other")))
    # what TensorRT's parser assumes where a node says nothing
    namespace, version = texts.get(NAMESPACE_ATTRIBUTE, node.domain), texts.get(VERSION_ATTRIBUTE, "1")
    return node.op_type, namespace, version, tuple(sorted(own)), body
