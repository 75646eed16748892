"""A hand-made Apex-X model for tests that need no torch: real boxes and masks of bright blobs, by image statistics.

Every tile is one candidate: its box is the spread of what is brighter than the image's mean, its score the contrast.
Tiles that the budget leaves out keep a tenth of their score, so that a budget has an effect one can measure.
The mask of a detection is where the brightness exceeds the image's mean by 0.05: prototypes (brightness - mean, 1),
coefficients (40, -2).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper, parser

from apex_runtime.model_info import Category, Gflops, InputInfo, MaskInfo, ModelInfo, Preprocessing, TileInfo

GRAPH = """
<ir_version: 9, opset_import: ["" : 20, "apex" : 1]>
tiny (uint8[batch,{h},{w},3] images, int64[1] tiles, float[batch,{n}] tile_bonus)
  => (float[batch,{m},4] boxes, float[batch,{m}] scores, int64[batch,{m}] labels, float[batch,{m},2] mask_coefficients,
      float[batch,2,{hp},{wp}] mask_prototypes, int64[batch,{m}] candidate_ids, int64[batch,k] tile_ids,
      int64[batch,k] tile_levels, float[batch,{n}] utilities)
<float scale = {{0.00392156862}}, int64[2] axes12 = {{1, 2}}, int64[1] axis2 = {{2}},
 int64[6] split = {{0, {rows}, {t}, {cols}, {t}, 1}}, int64[3] flat = {{0, {n}, {area}}},
 float eps = {{0.000001}}, float two = {{2.0}}, float half = {{0.5}}, float slope = {{12.0}}, float threshold = {{0.35}},
 float tenth = {{0.1}}, int64[1] m = {{{m}}}, float rounding = {{128.0}}, float n2 = {{{n2}.0}}, int64 zero = {{0}}>
{{
  pixels = Cast<to = 1>(images)
  unit = Mul(pixels, scale)
  grey = MatMul(unit, third)
  mean = ReduceMean<keepdims = 1>(grey, axes12)
  centred = Sub(grey, mean)
  positive = Relu(centred)
  tiled6 = Reshape(positive, split)
  tiled = Transpose<perm = [0, 1, 3, 2, 4, 5]>(tiled6)
  weights = Reshape(tiled, flat)
  mass = ReduceSum<keepdims = 1>(weights, axis2)
  safe = Add(mass, eps)
  peak = ReduceMax<keepdims = 0>(weights, axis2)
  utilities = Mul(slope, peak)
  key = apex.SelectionKey<plugin_namespace = "apex", plugin_version = "1">(utilities, tile_bonus, rounding, n2, ids_f)
  top_keys, chosen = TopK<axis = 1>(key, tiles)
  order, place = TopK<axis = 1, largest = 0>(chosen, tiles)
  tile_ids = Identity(order)
  tile_levels = Mul(tile_ids, zero)
  shape = Shape(peak)
  off = Expand(tenth, shape)
  chosen_f = Cast<to = 1>(chosen)
  none = Mul(chosen_f, zero_f)
  on = Add(none, one_f)
  gate = ScatterElements<axis = 1>(off, tile_ids, on)
  wx = Mul(weights, xs)
  wy = Mul(weights, ys)
  sx = ReduceSum<keepdims = 1>(wx, axis2)
  sy = ReduceSum<keepdims = 1>(wy, axis2)
  mx = Div(sx, safe)
  my = Div(sy, safe)
  dx = Sub(xs, mx)
  dy = Sub(ys, my)
  dx2 = Mul(dx, dx)
  dy2 = Mul(dy, dy)
  wdx = Mul(weights, dx2)
  wdy = Mul(weights, dy2)
  vx0 = ReduceSum<keepdims = 1>(wdx, axis2)
  vy0 = ReduceSum<keepdims = 1>(wdy, axis2)
  vx = Div(vx0, safe)
  vy = Div(vy0, safe)
  ex0 = Sqrt(vx)
  ey0 = Sqrt(vy)
  ex1 = Mul(two, ex0)
  ey1 = Mul(two, ey0)
  ex = Add(ex1, half)
  ey = Add(ey1, half)
  x1 = Sub(mx, ex)
  y1 = Sub(my, ey)
  x2 = Add(mx, ex)
  y2 = Add(my, ey)
  all_boxes = Concat<axis = 2>(x1, y1, x2, y2)
  above = Sub(peak, threshold)
  steep = Mul(slope, above)
  raw = Sigmoid(steep)
  all_scores = Mul(raw, gate)
  scores, candidate_ids = TopK<axis = 1>(all_scores, m)
  where = Unsqueeze(candidate_ids, axis2)
  where4_shape = Constant<value = int64[3] {{1, 1, 4}}>()
  where4 = Expand(where, where4_shape)
  boxes = GatherElements<axis = 1>(all_boxes, where4)
  labels = Mod(candidate_ids, classes)
  zero_scores = Mul(scores, zero_f)
  zero3 = Unsqueeze(zero_scores, axis2)
  mask_coefficients = Add(zero3, coefficients)
  planes = Transpose<perm = [0, 3, 1, 2]>(centred)
  pooled = AveragePool<kernel_shape = [4, 4], strides = [4, 4]>(planes)
  nothing = Mul(pooled, zero_f)
  bias = Add(nothing, one_f)
  mask_prototypes = Concat<axis = 1>(pooled, bias)
}}
<domain: "apex", opset_import: ["" : 20]>
SelectionKey (utility, bonus, rounding, n2, ids) => (key)
{{
  sum = Add(utility, bonus)
  wide = Mul(sum, rounding)
  whole = Round(wide)
  ranked = Mul(whole, n2)
  key = Sub(ranked, ids)
}}
"""


def tiny_info(height: int = 128, width: int = 128, tile: int = 32, max_detections: int = 12, classes: int = 1) -> ModelInfo:
    """The passport of the tiny model; every number in it is true of the graph that ``write_tiny_model`` writes."""
    names = ("blob", "drop", "spot")[:classes]
    return ModelInfo(
        classes=tuple(Category(id=10 + i, name=name) for i, name in enumerate(names)),
        input=InputInfo(height=height, width=width),
        preprocessing=Preprocessing(mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0)),
        tiles=TileInfo(tile=tile, halo=0, rows=height // tile, cols=width // tile),
        mask=MaskInfo(channels=2, stride=4),
        max_detections=max_detections,
        gflops=Gflops(base=0.001, per_tile=0.0001),
        model={"name": "tiny"},
        checkpoint_sha256=hashlib.sha256(b"tiny").hexdigest(),
        tools={"onnx": onnx.__version__},
    )


def write_tiny_model(path: Path, **kwargs: int) -> Path:
    """Write the model to ``path``; ``kwargs`` as for ``tiny_info``."""
    info = tiny_info(**kwargs)
    onnx.save(tiny_proto(info), path)
    return path


def tiny_proto(info: ModelInfo) -> onnx.ModelProto:
    """The model as a checked protobuf with its passport in the metadata."""
    h, w, t, rows, cols = info.input.height, info.input.width, info.tiles.tile, info.tiles.rows, info.tiles.cols
    n = rows * cols
    n2 = 1 << (n - 1).bit_length()
    text = GRAPH.format(h=h, w=w, t=t, rows=rows, cols=cols, n=n, n2=n2, m=info.max_detections, hp=h // 4, wp=w // 4, area=t * t)
    model = parser.parse_model(text)
    model.graph.initializer.extend(_constants(info))
    helper.set_model_props(model, {"apex_x": info.to_json()})
    onnx.checker.check_model(model, full_check=True)
    return model


def _constants(info: ModelInfo) -> list[onnx.TensorProto]:
    t, rows, cols = info.tiles.tile, info.tiles.rows, info.tiles.cols
    row, col, y, x = np.meshgrid(np.arange(rows), np.arange(cols), np.arange(t), np.arange(t), indexing="ij")
    arrays = {
        "xs": (col * t + x + 0.5).reshape(1, rows * cols, t * t).astype(np.float32),
        "ys": (row * t + y + 0.5).reshape(1, rows * cols, t * t).astype(np.float32),
        "ids_f": np.arange(rows * cols, dtype=np.float32)[None],
        "classes": np.array(len(info.classes), np.int64),
        "coefficients": np.array([[[40.0, -2.0]]], np.float32),
        "third": np.full((3, 1), 1 / 3, np.float32),
        "zero_f": np.array(0, np.float32),
        "one_f": np.array(1, np.float32),
    }
    return [numpy_helper.from_array(array, name) for name, array in arrays.items()]
