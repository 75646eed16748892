"""DecodeNMS as a TensorRT plugin: importing this module registers it. One kernel, launched ahead of time: the plan carries it.

A plugin of this kind is one launch with no memory beside its inputs and outputs. So it is the kernel that does all of the op with
a block per image, and not the two launches with a workspace of the torch binding, which find the best class of every anchor with
the whole GPU. A class-based ``IPluginV3`` in Python could make those two, but its plan would need Python, this package and a
compiler wherever it is loaded.

Never executed on a GPU: unproven.
"""

# No "from __future__ import annotations": TensorRT reads the annotations, and strings would tell it nothing.
import numpy as np
import tensorrt as trt
import tensorrt.plugin as trtp

from apex_plugins.decode_nms.launch import ROWS, TYPES, Settings, is_wide, kernel_name
from apex_plugins.decode_nms.reference import SPEC, output_shape
from apex_plugins.kernels.tensorrt_launch import LETTERS, Planned, fixed, planned, plugin_of

IMPLEMENTATION = "plan"
Outputs = tuple[trtp.TensorDesc, trtp.TensorDesc, trtp.TensorDesc, trtp.TensorDesc]
PLUGIN, KERNELS = plugin_of(SPEC)  # before anything is registered: a plugin without a kernel is worse than none


@trtp.register(PLUGIN)
def describe(
    scores: trtp.TensorDesc,
    ltrb: trtp.TensorDesc,
    centres: trtp.TensorDesc,
    strides: trtp.TensorDesc,
    max_detections: int,
    pre_nms: int,
    score: float,
    iou: float,
) -> Outputs:
    """Boxes, their scores, labels, candidate ids."""
    types = (ltrb.dtype, scores.dtype, trt.int64, trt.int64)
    shapes = output_shape(tuple(scores.shape_expr), max_detections)
    return tuple(trtp.from_shape_expr(shape, kind) for shape, kind in zip(shapes, types, strict=True))


@trtp.autotune(PLUGIN)
def combine(
    scores: trtp.TensorDesc,
    ltrb: trtp.TensorDesc,
    centres: trtp.TensorDesc,
    strides: trtp.TensorDesc,
    outputs: Outputs,
) -> list[trtp.AutoTuneCombination]:
    """Scores in float32 or float16, where boxes are decoded in float32; all in plain layout."""
    return [trtp.AutoTuneCombination("FP32|FP16, FP32, FP32, FP32, FP32, FP32|FP16, INT64, INT64", "LINEAR")]


@trtp.aot_impl(PLUGIN)
def launch(
    scores: trtp.TensorDesc,
    ltrb: trtp.TensorDesc,
    centres: trtp.TensorDesc,
    strides: trtp.TensorDesc,
    max_detections: int,
    pre_nms: int,
    score: float,
    iou: float,
    outputs: Outputs,
    tactic: int,
) -> Planned:
    """The kernel and its launch for these types. TensorRT aligns tensors beyond what a wide read needs."""
    kind, settings = LETTERS[scores.dtype.name], Settings(max_detections, pre_nms, score, iou)
    anchors, classes = fixed(*tuple(scores.shape_expr)[1:])
    return planned(
        KERNELS,
        kernel_name(kind),
        (scores.shape_expr[0], 1, 1),
        (ROWS, 1, 1),
        (anchors, classes, int(is_wide(kind, classes)), settings.max_detections, settings.pre_nms),
        (np.asarray(settings.score, TYPES[kind]).item(), settings.iou),  # scores are compared in their own type
    )
