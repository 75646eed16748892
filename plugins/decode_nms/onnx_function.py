"""DecodeNMS in standard ONNX ops (opset 20): top-k per level, IoU matrix, one Scan over the candidates, padded outputs.

The Scan is the one that DESIGN rule 12 allows: a greedy suppression is sequential. It runs over 3 * pre_nms <= 999 rows.
"""

# mypy: ignore-errors
# (The body is onnxscript, a language that is parsed, not Python that is run: operators and optional inputs mean ONNX.)
from __future__ import annotations

from onnxscript import BOOL, FLOAT, INT64, graph, script
from onnxscript import opset20 as op
from onnxscript.values import Opset

apex = Opset("apex", 1)


@script(apex, default_opset=op)
def DecodeNMS(
    scores: FLOAT, ltrb: FLOAT, centres: FLOAT, strides: FLOAT, max_detections: int, pre_nms: int, score: float, iou: float
):
    """scores [B,A,nc], ltrb [B,A,4], centres [A,2], strides [A] -> boxes [B,M,4], scores, labels, candidate ids [B,M]."""
    last = op.Constant(value_ints=[-1])
    none = op.CastLike(op.Constant(value_float=-1.0), scores)
    zero = op.CastLike(op.Constant(value_float=0.0), scores)
    threshold = op.CastLike(op.Constant(value_float=score), scores)
    best = op.ReduceMax(scores, last, keepdims=0)
    # Candidates: of each level the best pre_nms, then all of them by score. TopK gives equals to the lower index, as the op asks.
    limit = op.Min(op.Reshape(op.Constant(value_int=pre_nms), last), op.Shape(strides))
    best_8, ids_8 = op.TopK(op.Where(op.Equal(strides, op.CastLike(op.Constant(value_float=8.0), strides)), best, none), limit)
    best_16, ids_16 = op.TopK(op.Where(op.Equal(strides, op.CastLike(op.Constant(value_float=16.0), strides)), best, none), limit)
    best_32, ids_32 = op.TopK(op.Where(op.Equal(strides, op.CastLike(op.Constant(value_float=32.0), strides)), best, none), limit)
    union_best = op.Concat(best_8, best_16, best_32, axis=1)
    best_BP, order = op.TopK(union_best, op.Shape(union_best, start=1, end=2))
    ids_BP = op.GatherElements(op.Concat(ids_8, ids_16, ids_32, axis=1), order, axis=1)
    ids_BP1 = op.Unsqueeze(ids_BP, last)
    label_BP = op.GatherND(op.ArgMax(scores, axis=2, keepdims=0), ids_BP1, batch_dims=1)
    # Boxes of the candidates only.
    step = op.Gather(strides, ids_BP1, axis=0)
    centre = op.Gather(centres, ids_BP, axis=0)
    distance = op.GatherND(ltrb, ids_BP1, batch_dims=1)
    low = (
        centre - op.Slice(distance, op.Constant(value_ints=[0]), op.Constant(value_ints=[2]), op.Constant(value_ints=[2])) * step
    )
    high = (
        centre + op.Slice(distance, op.Constant(value_ints=[2]), op.Constant(value_ints=[4]), op.Constant(value_ints=[2])) * step
    )
    # Who would suppress whom, if it were kept: same class, later in the order, IoU above the threshold.
    one_axis = op.Constant(value_ints=[1])
    two_axis = op.Constant(value_ints=[2])
    x1, y1 = op.Split(low, num_outputs=2, axis=2)
    x2, y2 = op.Split(high, num_outputs=2, axis=2)
    # One coordinate at a time, [B,P,1] against [B,1,P]: far quicker than pairs of corners.
    flip = op.Constant(value_ints=[0, 1, -1])
    wide = op.Max(op.Min(x2, op.Reshape(x2, flip)) - op.Max(x1, op.Reshape(x1, flip)), zero)
    tall = op.Max(op.Min(y2, op.Reshape(y2, flip)) - op.Max(y1, op.Reshape(y1, flip)), zero)
    shared = wide * tall
    area = (x2 - x1) * (y2 - y1)
    joint = area + op.Reshape(area, flip) - shared
    over = shared > op.CastLike(op.Constant(value_float=iou), scores) * joint
    same = op.Equal(op.Unsqueeze(label_BP, two_axis), op.Unsqueeze(label_BP, one_axis))
    place = op.Range(op.Constant(value_int=0), op.Squeeze(op.Shape(best_BP, start=1, end=2)), op.Constant(value_int=1))
    later = op.Unsqueeze(place, op.Constant(value_ints=[0])) > op.Unsqueeze(place, one_axis)
    beats = op.And(op.And(over, same), later)

    @graph()
    def step_body(alive: BOOL[...], at: INT64, row: BOOL[...]):
        chosen = op.Gather(alive, op.Unsqueeze(at, op.Constant(value_ints=[0])), axis=1)
        left = op.And(alive, op.Not(op.And(row, chosen)))
        return left

    kept = op.Scan(best_BP > threshold, place, op.Transpose(beats, perm=[1, 0, 2]), body=step_body, num_scan_inputs=2)
    # Padding: max_detections empty candidates behind the real ones, so that the last TopK always finds enough.
    padding = op.Concat(op.Shape(best_BP, start=0, end=1), op.Reshape(op.Constant(value_int=max_detections), last), axis=0)
    scored = op.Concat(op.Where(kept, best_BP, none), op.Expand(none, padding), axis=1)
    top, at_BM = op.TopK(scored, op.Reshape(op.Constant(value_int=max_detections), last))
    real = top >= zero
    minus_one = op.Constant(value_int=-1)
    filler = op.Expand(minus_one, padding)
    candidate_ids = op.Where(real, op.GatherElements(op.Concat(ids_BP, filler, axis=1), at_BM, axis=1), minus_one)
    labels = op.Where(real, op.GatherElements(op.Concat(label_BP, filler, axis=1), at_BM, axis=1), minus_one)
    corners = op.Concat(low, high, axis=2)
    room = op.Expand(zero, op.Concat(padding, op.Constant(value_ints=[4]), axis=0))
    picked = op.GatherND(op.Concat(corners, room, axis=1), op.Unsqueeze(at_BM, last), batch_dims=1)
    boxes = op.Where(op.Unsqueeze(real, last), picked, zero)
    return boxes, op.Where(real, top, zero), labels, candidate_ids
