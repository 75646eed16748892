"""TileUnpackFusion in standard ONNX ops (opset 20).

The map is seen as rows of n = tile / 8 neighbouring cells (free: a reshape); the rows of the chosen tiles are gathered, blended
and written back, so that nothing but one copy of the map grows with the image.
"""

# mypy: ignore-errors
# (The body is onnxscript, a language that is parsed, not Python that is run: operators and optional inputs mean ONNX.)
from __future__ import annotations

from onnxscript import FLOAT, INT64, script
from onnxscript import opset20 as op
from onnxscript.values import Opset

apex = Opset("apex", 1)


@script(apex, default_opset=op)
def TileUnpackFusion(base: FLOAT, tiles: FLOAT, ids: INT64, levels: INT64, alpha: FLOAT, tile: int) -> FLOAT:
    """base [B,C,h,w], tiles [B,K,C,n,n], ids and levels [B,K], alpha [B,K,1,n,n] -> [B,C,h,w]. Version 1 does not read levels."""
    zero = op.Constant(value_int=0)
    one = op.Constant(value_int=1)
    last = op.Constant(value_ints=[-1])
    n = op.Constant(value_int=tile) / op.Constant(value_int=8)
    shape = op.Shape(base)
    batch = op.Gather(shape, zero)
    channels = op.Gather(shape, one)
    height = op.Gather(shape, op.Constant(value_int=2))
    cols = op.Gather(shape, op.Constant(value_int=3)) / n
    row = ids / cols
    col = ids - row * cols
    y = op.Unsqueeze(row * n, last) + op.Range(zero, n, one)
    place = op.Unsqueeze(y * cols + op.Unsqueeze(col, last), op.Constant(value_ints=[2]))
    plane = op.Range(zero, batch * channels, one) * (height * cols)
    plane_shape = op.Concat(
        op.Reshape(batch, last), op.Constant(value_ints=[1]), op.Reshape(channels, last), op.Constant(value_ints=[1]), axis=0
    )
    index = place + op.Reshape(plane, plane_shape)
    rows = op.Reshape(base, op.Concat(last, op.Reshape(n, last), axis=0))
    before = op.Gather(rows, index, axis=0)
    after = before + alpha * (tiles - before)
    return op.Reshape(op.ScatterND(rows, op.Unsqueeze(index, last), after), shape)
