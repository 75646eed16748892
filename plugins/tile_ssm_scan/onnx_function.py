"""TileSSMScan in standard ONNX ops (opset 20): the masked-matrix form, exact and without a Scan node (DESIGN rule 9)."""

# mypy: ignore-errors
# (The body is onnxscript, a language that is parsed, not Python that is run: operators and optional inputs mean ONNX.)
from __future__ import annotations

from onnxscript import FLOAT, script
from onnxscript import opset20 as op
from onnxscript.values import Opset

apex = Opset("apex", 1)


@script(apex, default_opset=op)
def TileSSMScan(x: FLOAT, dt: FLOAT, A: FLOAT, Bm: FLOAT, Cm: FLOAT, D: FLOAT, reverse: int) -> FLOAT:
    """x [B,K,H,P], dt [B,K,H], A and D [H], Bm and Cm [B,K,S] -> y [B,K,H,P]."""
    zero = op.Constant(value_int=0)
    one = op.Constant(value_int=1)
    x_BHKP = op.Transpose(x, perm=[0, 2, 1, 3])
    rate = op.Unsqueeze(op.Neg(op.Exp(A)), op.Constant(value_ints=[1]))
    dt_BHK = op.Transpose(dt, perm=[0, 2, 1])
    total = op.CumSum(rate * dt_BHK, op.Constant(value_int=2), reverse=reverse)
    difference = op.Unsqueeze(total, op.Constant(value_ints=[3])) - op.Unsqueeze(total, op.Constant(value_ints=[2]))
    count = op.Squeeze(op.Shape(x, start=1, end=2))
    token = op.Range(zero, count, one)
    lag = op.Unsqueeze(token, op.Constant(value_ints=[1])) - op.Unsqueeze(token, op.Constant(value_ints=[0]))
    direction = one - op.Constant(value_int=2) * op.Constant(value_int=reverse)
    earlier = op.CastLike(lag * direction >= zero, x)
    # The mask comes before the exponential: where it is 0 the difference is positive and could overflow.
    decay = op.Exp(difference * earlier) * earlier
    mix = op.MatMul(Cm, op.Transpose(Bm, perm=[0, 2, 1]))
    weight = decay * op.Unsqueeze(mix, op.Constant(value_ints=[1])) * op.Unsqueeze(dt_BHK, op.Constant(value_ints=[2]))
    y_BHKP = op.MatMul(weight, x_BHKP) + op.Unsqueeze(D, op.Constant(value_ints=[1, 2])) * x_BHKP
    return op.Transpose(y_BHKP, perm=[0, 2, 1, 3])
