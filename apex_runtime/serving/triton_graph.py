"""The graph as Triton batches it: the number of tiles comes as the *length* of an input, not as a number in one.

Triton's dynamic batcher puts requests together whose inputs have equal shapes, and stacks them. ``tiles`` int64 [1] has one
number for a whole batch and could not be stacked. So an input ``tile_slots`` uint8 [batch,K] takes its place, whose values mean
nothing: K is its length. Requests of unequal K have unequal shapes and never meet in a batch; everything behind it is the graph
as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from apex_runtime.backends.session import Tiles, per_level
from apex_runtime.model_info import ModelInfo, input_names

if TYPE_CHECKING:
    import onnx

SLOTS = "tile_slots"


def slot_names(info: ModelInfo) -> dict[str, str]:
    """The input that takes the place of ``tiles``, of ``tiles_1`` and so on."""
    names = [name for name in input_names(info.tiles.depth) if name.startswith("tiles")]
    return {name: SLOTS + name.removeprefix("tiles") for name in names}


def slots_of(info: ModelInfo, tiles: Tiles) -> dict[str, np.ndarray]:
    """The inputs that stand for K, uint8 [1,K]; finer levels, where K may be 0, have one more: no input of Triton is empty."""
    levels = zip(slot_names(info).values(), per_level(tiles), strict=True)
    return {name: np.zeros((1, count + (level > 0)), np.uint8) for level, (name, count) in enumerate(levels)}


def with_tile_slots(model: onnx.ModelProto, info: ModelInfo) -> onnx.ModelProto:
    """A copy of an exported graph that reads K from the shapes of its slots."""
    import onnx
    from onnx import helper

    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    nodes: list[onnx.NodeProto] = []
    for level, (tiles, slots) in enumerate(slot_names(info).items()):
        place = next(place for place, value in enumerate(graph.input) if value.name == tiles)
        graph.input[place].CopyFrom(helper.make_tensor_value_info(slots, onnx.TensorProto.UINT8, ["batch", slots + "_length"]))
        length = tiles if level == 0 else slots + "_count"
        nodes.append(helper.make_node("Shape", [slots], [length], name=f"{slots}/Shape", start=1, end=2))
        if level:
            one = helper.make_tensor(slots + "_one", onnx.TensorProto.INT64, [1], [1])
            graph.initializer.append(one)
            nodes.append(helper.make_node("Sub", [length, one.name], [tiles], name=f"{slots}/Sub"))
    kept = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *kept])
    onnx.checker.check_model(changed)
    return changed
