"""Which tensor of the candidate is which of the reference: by name, and where names changed by what computes it from what."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from apex_runtime.parity.bisect.slices import captured

if TYPE_CHECKING:
    import onnx

_Signature = tuple[str, str, tuple[str, ...]]


def renamed_like(candidate: onnx.ModelProto, reference: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the candidate whose tensors bear the reference's names as far as they can be recognised.

    A tensor keeps a name that the reference has as well. Others are recognised, in the order of the graph, by op and inputs; of
    several that look the same the first is the first. What an inner graph takes from outside keeps its name.
    """
    from onnx import ModelProto

    changed = ModelProto()
    changed.CopyFrom(candidate)
    names = _recognised(candidate, reference)
    for node in changed.graph.node if names else ():
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in changed.graph.value_info if names else ():
        value.name = names.get(value.name, value.name)
    return changed


def _recognised(candidate: onnx.ModelProto, reference: onnx.ModelProto) -> dict[str, str]:
    """Name in the candidate -> name in the reference, of tensors that bear different ones."""
    theirs, ours = _written(candidate), _written(reference)
    lost: dict[_Signature, deque[onnx.NodeProto]] = defaultdict(deque)
    for node in reference.graph.node:
        if not theirs & set(node.output):
            lost[_signature(node, ours, {})].append(node)
    names: dict[str, str] = {}
    fixed = ours | {name for node in candidate.graph.node for name in captured(node)}
    for node in candidate.graph.node:
        if fixed & set(node.output):
            continue
        alike = lost[_signature(node, theirs, names)]
        if alike and len(alike[0].output) == len(node.output):
            names |= {old: new for old, new in zip(node.output, alike.popleft().output, strict=True) if old and new}
    return names


def _written(model: onnx.ModelProto) -> set[str]:
    return {name for node in model.graph.node for name in node.output if name} | {value.name for value in model.graph.input}


def _signature(node: onnx.NodeProto, written: set[str], names: Mapping[str, str]) -> _Signature:
    """Op and inputs; weights, whose names say little, are left out."""
    return node.domain, node.op_type, tuple(names.get(name, name) for name in node.input if name in written)
