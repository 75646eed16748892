"""What two nodes that should do the same say differently: op, inputs, attributes, weights, the body of a function."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from apex_runtime.parity.bisect.slices import Graph

if TYPE_CHECKING:
    import onnx

_MOST = 120  # characters of an attribute


def changes(reference: Graph, ours: onnx.NodeProto, candidate: Graph, theirs: onnx.NodeProto) -> Iterator[str]:
    """In words, the reference first. A weight of another name but the same content is no change; of two ops no more is told."""
    if (ours.domain, ours.op_type) != (theirs.domain, theirs.op_type):
        yield f"op: {ours.op_type}, in the candidate {theirs.op_type}"
        return
    yield from _inputs(reference, ours, candidate, theirs)
    first, second = _attributes(ours), _attributes(theirs)
    for name in sorted(first.keys() | second.keys()):
        if first.get(name) != second.get(name):
            yield f"attribute {name}: {first.get(name, 'none')}, in the candidate {second.get(name, 'none')}"
    if _body(reference.model, ours) != _body(candidate.model, theirs):
        yield f"the body of function {theirs.domain}.{theirs.op_type} is another"


def _inputs(reference: Graph, ours: onnx.NodeProto, candidate: Graph, theirs: onnx.NodeProto) -> Iterator[str]:
    if len(ours.input) != len(theirs.input):
        yield f"inputs: {len(ours.input)}, in the candidate {len(theirs.input)}"
    for at, (first, second) in enumerate(zip(ours.input, theirs.input, strict=False)):
        if first in reference.weights and second in candidate.weights:
            yield from _weight(first, reference.weights[first], candidate.weights[second])
        elif first != second:
            yield f"input {at}: {first or 'none'}, in the candidate {second or 'none'}"


def _weight(name: str, ours: onnx.TensorProto, theirs: onnx.TensorProto) -> Iterator[str]:
    from onnx import numpy_helper

    first, second = numpy_helper.to_array(ours), numpy_helper.to_array(theirs)
    if first.shape != second.shape:
        yield f"weight {name}: shape {list(first.shape)}, in the candidate {list(second.shape)}"
        return
    other = int(np.count_nonzero(~_equal(first, second)))
    if other:
        yield f"weight {name}: {other} of {first.size} values differ"


def _equal(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Value by value, in the narrower of two float types: that one was rounded to it is no change."""
    kind = min(first.dtype, second.dtype, key=lambda dtype: dtype.itemsize)
    first, second = first.astype(kind), second.astype(kind)
    return (first == second) | ((first != first) & (second != second))  # a NaN on both sides is the same


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    from onnx import helper

    return {item.name: str(helper.get_attribute_value(item))[:_MOST] for item in node.attribute}


def _body(model: onnx.ModelProto, node: onnx.NodeProto) -> list[bytes] | None:
    found = next((item for item in model.functions if (item.domain, item.name) == (node.domain, node.op_type)), None)
    return None if found is None else [inner.SerializeToString(deterministic=True) for inner in found.node]
