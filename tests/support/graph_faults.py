"""Faults that live in a graph, planted one by one: what was changed, and which tensors the guilty node writes.

``SHIPPED`` is for the default engine, ``EIGHT_BITS`` for that engine in int8, ``TINY`` for the hand-made model; nodes are named
by the first tensor that they write.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

Edit = Callable[[onnx.ModelProto], None]
Change = Callable[[np.ndarray], np.ndarray]


class GraphFault(NamedTuple):
    """``guilty``: the node's first output. ``edit`` changes the graph in place."""

    guilty: str
    edit: Edit


def with_fault(model: onnx.ModelProto, fault: GraphFault) -> onnx.ModelProto:
    """A copy with the fault in it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    fault.edit(copy)
    assert copy != model, "nothing was changed"
    return copy


def node_of(model: onnx.ModelProto, output: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if output in node.output)


def neighbours(model: onnx.ModelProto, output: str) -> set[str]:
    """First outputs of the node itself, of those that it reads from and of those that read from it."""
    node = node_of(model, output)
    near = [other for other in model.graph.node if set(other.output) & set(node.input) or set(other.input) & set(node.output)]
    return {other.output[0] for other in (node, *near)}


def weight(guilty: str, name: str, change: Change) -> GraphFault:
    """Another content of an initializer that ``guilty`` reads; others that share it keep theirs."""

    def edit(model: onnx.ModelProto) -> None:
        old = next(tensor for tensor in model.graph.initializer if tensor.name == name)
        array = numpy_helper.to_array(old)
        changed = np.asarray(change(array.copy()), array.dtype, order="C")
        model.graph.initializer.append(numpy_helper.from_array(changed, name + "_spoilt"))
        node = node_of(model, guilty)
        node.input[:] = [name + "_spoilt" if item == name else item for item in node.input]

    return GraphFault(guilty, edit)


def op(guilty: str, name: str) -> GraphFault:
    """Another op in its place."""

    def edit(model: onnx.ModelProto) -> None:
        node_of(model, guilty).op_type = name

    return GraphFault(guilty, edit)


def attribute(guilty: str, **values: Any) -> GraphFault:
    """Other attributes."""

    def edit(model: onnx.ModelProto) -> None:
        node = node_of(model, guilty)
        kept = [item for item in node.attribute if item.name not in values]
        del node.attribute[:]
        node.attribute.extend([*kept, *(helper.make_attribute(key, value) for key, value in values.items())])

    return GraphFault(guilty, edit)


def inputs(guilty: str, *order: int) -> GraphFault:
    """Inputs in another order."""

    def edit(model: onnx.ModelProto) -> None:
        node = node_of(model, guilty)
        node.input[:] = [node.input[at] for at in order]

    return GraphFault(guilty, edit)


def reads(guilty: str, old: str, new: str) -> GraphFault:
    """Another tensor in place of one that it reads."""

    def edit(model: onnx.ModelProto) -> None:
        node = node_of(model, guilty)
        node.input[:] = [new if item == old else item for item in node.input]

    return GraphFault(guilty, edit)


def lost(guilty: str) -> GraphFault:
    """The node is gone: whoever read it reads what it read."""

    def edit(model: onnx.ModelProto) -> None:
        node = node_of(model, guilty)
        for other in model.graph.node:
            other.input[:] = [node.input[0] if item == guilty else item for item in other.input]
        model.graph.node.remove(node)

    return GraphFault(guilty, edit)


def body(guilty: str, function: str, change: Callable[[onnx.FunctionProto], None]) -> GraphFault:
    """Another body of the function that it calls."""

    def edit(model: onnx.ModelProto) -> None:
        change(next(item for item in model.functions if item.name == function))

    return GraphFault(guilty, edit)


def _last_becomes(kind: str, name: str) -> Callable[[onnx.FunctionProto], None]:
    """In a function: the last node of one kind becomes one of another."""

    def change(function: onnx.FunctionProto) -> None:
        [node for node in function.node if node.op_type == kind][-1].op_type = name

    return change


def _halo_off_by_one(function: onnx.FunctionProto) -> None:
    nodes = list(function.node)
    at = next(index for index, node in enumerate(nodes) if node.output[0] == "tmp_4")  # where the tile's top is
    nodes[at].input[1] = "narrower"
    del function.node[:]
    function.node.extend([*nodes[:at], helper.make_node("Sub", ["margin", "one"], ["narrower"]), *nodes[at:]])


def _scaled(factor: float) -> Change:
    return lambda array: array * factor


def _one_channel(array: np.ndarray) -> np.ndarray:
    array[0] *= 1.5
    return array


def _one_nan(array: np.ndarray) -> np.ndarray:
    array.flat[array.size // 2] = np.nan
    return array


def _saturated(limit: float) -> Change:
    return lambda array: np.clip(array, -limit, limit)


def _reversed(array: np.ndarray) -> np.ndarray:
    return np.flip(array)


SHIPPED = {
    "a weight of the foveal stream": weight("conv2d_29", "detector.foveal.middle.1.first.0.weight", _one_channel),
    "a weight of the boxes": weight("conv2d_60", "detector.heads.1.ltrb.weight", _one_channel),
    "a weight of the neck, second use": weight("conv2d_40", "detector.neck.down4.0.weight", _one_channel),
    "a saturated weight": weight("conv2d_5", "detector.peripheral.stages.1.1.second.0.weight", _saturated(0.05)),
    "a NaN in a weight": weight("conv2d_36", "detector.foveal.project.weight", _one_nan),
    "a folded bias": weight("conv2d_74", "detector.masks.expand.bias", _scaled(0)),
    "the mean of the normalisation": weight("sub_2", "detector.pixel_mean", lambda array: array / 255),
    "the scale of the normalisation": weight("mul_6", "detector.pixel_scale", _scaled(0.5)),
    "anchors half a cell off": weight("val_376", "val_370", lambda array: array + 4),
    "strides of the levels": weight("val_383", "val_377", _reversed),
    "tiles permuted": weight("val_92", "val_86", _reversed),
    "steps of the keys": weight("mul_254", "val_82", _scaled(-1)),
    "a transpose of height and width": attribute("permute", perm=[0, 3, 2, 1]),
    "a transpose that does not fit": attribute("transpose_3", perm=[0, 1, 2]),
    "pads of a convolution": attribute("conv2d_30", pads=[0, 0, 2, 2]),
    "dilations of a convolution": attribute("conv2d_33", dilations=[2, 2], pads=[2, 2, 2, 2]),
    "epsilon of a norm": attribute("layer_norm", epsilon=0.5),
    "an enlargement that interpolates": attribute("upsample_nearest2d", mode="linear"),
    "the worst for the best": attribute("scores", largest=0),
    "the scan backwards": attribute("tile_ssm_scan", reverse=1),
    "Sub for Add": op("add_273", "Sub"),
    "Max for Add in a residual": op("add_728", "Max"),
    "tanh for sigmoid in the gate": op("sigmoid_4", "Tanh"),
    "operands of a difference": inputs("sub_231", 1, 0),
    "channels of a concatenation": inputs("cat", 2, 1, 0),
    "another level of the neck": reads("conv2d_19", "add_273", "add_210"),
    "a Relu": lost("relu_20"),
    "a Relu with three readers": lost("relu_2"),
    "a Relu's residual": lost("add_815"),
    "the halo of the tiles": body("tile_pack", "TilePack", _halo_off_by_one),
    "the body of the scan": body("tile_ssm_scan", "TileSSMScan", _last_becomes("Neg", "Identity")),
    "the body of the fusion": body("tile_unpack_fusion", "TileUnpackFusion", _last_becomes("Add", "Sub")),
    "the limit of the utilities": weight("clamp", "val_74", _scaled(0)),
}

EIGHT_BITS = {
    "the scale of what is restored": weight("relu_1.rounded", "relu_1.scale", _scaled(4)),
    "the scale of what is rounded": weight("relu_1.codes", "relu_1.scale", _scaled(0.125)),
    "the zero point of what is restored": weight("relu_1.rounded", "relu_1.zero_point", lambda array: array + 64),
    "the scales of a weight": weight(
        "detector.peripheral.stages.1.0.0.weight.node_conv2d_3.rounded",
        "detector.peripheral.stages.1.0.0.weight.node_conv2d_3.scale",
        _scaled(8),
    ),
}

TINY = {
    "a weight of the grey": weight("grey", "third", _one_channel),
    "the scale of the normalisation": weight("unit", "scale", _scaled(0.5)),
    "an epsilon": weight("safe", "eps", _scaled(1e6)),
    "the slope of the utilities": weight("utilities", "slope", _scaled(0.5)),
    "a threshold": weight("above", "threshold", _scaled(2)),
    "a folded bias": weight("none", "zero_f", lambda array: array + 1),
    "the share of the tiles left out": weight("off", "tenth", _scaled(5)),
    "places three pixels off": weight("dx", "xs", lambda array: array + 3),
    "a saturated weight": weight("wx", "xs", _saturated(64)),
    "a NaN in a weight": weight("wy", "ys", _one_nan),
    "coefficients swapped": weight("mask_coefficients", "coefficients", _reversed),
    "steps of the keys": weight("key", "rounding", _scaled(-1)),
    "Abs for Relu": op("positive", "Abs"),
    "Add for Sub": op("centred", "Add"),
    "mean for maximum": op("peak", "ReduceMean"),
    "Tanh for Sigmoid": op("raw", "Tanh"),
    "Sub for Add": op("ey", "Sub"),
    "a Relu": lost("positive"),
    "a root": lost("ex0"),
    "tiles permuted": attribute("tiled", perm=[0, 1, 3, 4, 2, 5]),
    "a transpose of height and width": attribute("planes", perm=[0, 3, 2, 1]),
    "a transpose that does not fit": attribute("planes", perm=[0, 1, 2, 3]),
    "the kernel of a mean": attribute("pooled", kernel_shape=[2, 2]),
    "the worst for the best": attribute("scores", largest=0),
    "operands of a difference": inputs("above", 1, 0),
    "x for y in a box": inputs("all_boxes", 1, 0, 3, 2),
    "channels of a concatenation": inputs("mask_prototypes", 1, 0),
    "x for y in a mean": reads("my", "sy", "sx"),
    "the body of the keys": body("key", "SelectionKey", _last_becomes("Round", "Neg")),
    "ties of the keys": weight("key", "ids_f", lambda array: np.flip(array) * 64),
}
