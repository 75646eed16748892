"""A hand-made yardstick: every square of 16 pixels is a candidate, its score the mean brightness, its mask what is bright in it.

    python tests/support/bright_cells.py FOLDER        writes FOLDER/bright.onnx and FOLDER/bright.yaml

Its outputs have the form of ultralytics' segmentation exports. It finds nuclei badly, but better than nothing does.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser

CELL = 16
GRAPH = """
<ir_version: 9, opset_import: ["" : 20]>
bright (float[{batch},3,{side},{side}] images) => (float[{batch},6,{n}] output0, float[{batch},1,{q},{q}] output1)
<int64[1] channel = {{1}}, int64[3] flat = {{0, 1, {n}}}, float zero = {{0.0}}, float one = {{1.0}}, float edge = {{0.25}}>
{{
  grey = ReduceMean<keepdims = 1>(images, channel)
  means = AveragePool<kernel_shape = [16, 16], strides = [16, 16]>(grey)
  scores = Reshape(means, flat)
  nothing = Mul(scores, zero)
  places = Add(nothing, boxes)
  coefficients = Add(nothing, one)
  output0 = Concat<axis = 1>(places, scores, coefficients)
  quarter = AveragePool<kernel_shape = [4, 4], strides = [4, 4]>(grey)
  output1 = Sub(quarter, edge)
}}
"""
DESCRIPTION = """\
title: bright cells
model: bright.onnx
classes: [nucleus]
input:
  scale: 1/255
  resize: letterbox
  align: centre
  pad: 0
outputs:
  form: joined
  tensor: output0
  prototypes: output1
  box: cxcywh
  unit: pixels
suppression: {iou: 0.7}
"""


def write_bright_cells(folder: Path, side: int = 256, batch: str = "1") -> Path:
    """The path of the description; ``side``: of the input, a multiple of 16; ``batch``: a number, or a name for any."""
    cells = side // CELL
    model = parser.parse_model(GRAPH.format(side=side, n=cells * cells, q=side // 4, batch=batch))
    centres = (np.indices((cells, cells)).reshape(2, -1)[::-1] + 0.5) * CELL  # x, y
    boxes = np.concatenate([centres, np.full_like(centres, CELL)])[None].astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(boxes, "boxes"))
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "bright.onnx")
    description = folder / "bright.yaml"
    description.write_text(DESCRIPTION)
    return description


if __name__ == "__main__":
    print(write_bright_cells(Path(sys.argv[1])))
