"""TilePack in standard ONNX ops (opset 20): the model-local function body that runs where no kernel is registered.

Only the wanted pixels are read: the image is seen as rows of 8 neighbouring pixels (free: a reshape), which no tile or image
border cuts because tile, halo and sides are multiples of 8, and one Gather picks them in the layout of the output.
"""

# mypy: ignore-errors
# (The body is onnxscript, a language that is parsed, not Python that is run: operators and optional inputs mean ONNX.)
from __future__ import annotations

from onnxscript import FLOAT, INT64, script
from onnxscript import opset20 as op
from onnxscript.values import Opset

apex = Opset("apex", 1)


@script(apex, default_opset=op)
def TilePack(image: FLOAT, ids: INT64, levels: INT64, tile: int, halo: int) -> FLOAT:
    """image [B,3,H,W], ids and levels [B,K] -> [B,K,3,P,P], 0 outside the image. Version 1 does not read levels."""
    zero = op.Constant(value_int=0)
    one = op.Constant(value_int=1)
    eight = op.Constant(value_int=8)
    tile_size = op.Constant(value_int=tile)
    margin = op.Constant(value_int=halo)
    side = tile_size + margin + margin
    shape = op.Shape(image)
    batch = op.Gather(shape, zero)
    channels = op.Gather(shape, one)
    height = op.Gather(shape, op.Constant(value_int=2))
    width = op.Gather(shape, op.Constant(value_int=3))
    runs = width / eight
    cols = width / tile_size
    row = ids / cols
    col = ids - row * cols
    last = op.Constant(value_ints=[-1])
    top = op.Unsqueeze(row * tile_size - margin, last)
    left = op.Unsqueeze(col * tile_size - margin, last)
    offsets = op.Range(zero, side, one)
    y = top + offsets
    x = left + offsets
    run = (left + op.Range(zero, side, eight)) / eight
    y_real = op.Clip(y, zero, height - one)
    run_real = op.Clip(run, zero, runs - one)
    place = op.Unsqueeze(y_real * runs, last) + op.Unsqueeze(run_real, op.Constant(value_ints=[-2]))
    plane = op.Range(zero, batch * channels, one) * (height * runs)
    plane_shape = op.Concat(
        op.Reshape(batch, last), op.Constant(value_ints=[1]), op.Reshape(channels, last), op.Constant(value_ints=[1, 1]), axis=0
    )
    index = op.Unsqueeze(place, op.Constant(value_ints=[2])) + op.Reshape(plane, plane_shape)
    pixels = op.Gather(op.Reshape(image, op.Constant(value_ints=[-1, 8])), index, axis=0)
    side_1 = op.Reshape(side, last)
    tiles = op.Reshape(pixels, op.Concat(op.Shape(ids), op.Reshape(channels, last), side_1, side_1, axis=0))
    inside_y = op.And(y >= zero, y < height)
    inside_x = op.And(x >= zero, x < width)
    inside = op.And(op.Unsqueeze(inside_y, last), op.Unsqueeze(inside_x, op.Constant(value_ints=[-2])))
    return tiles * op.Unsqueeze(op.CastLike(inside, image), op.Constant(value_ints=[2]))
