"""The table that turns custom ops into nodes, on an op that the default export does not call."""

from __future__ import annotations

import numpy as np
import onnx_ir
import onnxruntime
import torch

from apex_plugins.decode_nms.reference import decode_nms as reference
from apex_plugins.decode_nms.torch_op import decode_nms
from apex_train.export.ops import load_ops, translation_table

OPTIONS = {"max_detections": 6, "pre_nms": 20, "score": 0.25, "iou": 0.5}


class Suppress(torch.nn.Module):
    def forward(self, scores, ltrb, centres, strides):
        return decode_nms(scores, ltrb, centres, strides, **OPTIONS)


def test_decode_nms_exports_as_one_node_with_a_body_and_a_dynamic_batch():
    rng = np.random.default_rng(0)
    strides = np.repeat(np.array([8, 16, 32], np.float32), (16, 4, 1))
    centres = rng.uniform(0, 32, (21, 2)).astype(np.float32)
    scores, ltrb = rng.random((3, 21, 2)).astype(np.float32), rng.uniform(0, 2, (3, 21, 4)).astype(np.float32)
    arrays = {"scores": scores, "ltrb": ltrb, "centres": centres, "strides": strides}
    batch = torch.export.Dim("batch", min=1, max=8)
    program = torch.onnx.export(
        Suppress().eval(),
        tuple(torch.from_numpy(item[:2] if item.ndim == 3 else item) for item in arrays.values()),
        dynamo=True,
        opset_version=20,
        input_names=list(arrays),
        dynamic_shapes={"scores": {0: batch}, "ltrb": {0: batch}, "centres": None, "strides": None},
        custom_translation_table=translation_table(),
        verbose=False,
    )
    model = program.model
    assert [node.op_type for node in model.graph] == ["DecodeNMS"]
    body = onnx_ir.serde.deserialize_function(load_ops()["decode_nms"].function)
    model.functions[body.identifier()] = body
    model.opset_imports["apex"] = 1
    data = onnx_ir.serde.serialize_model(model).SerializeToString()
    got = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, arrays)
    for wanted, item in zip(reference(*arrays.values(), **OPTIONS), got, strict=True):
        np.testing.assert_array_equal(item, wanted)
