"""Number formats of eight bits: which steps they have, and how tensors and weights are rounded to them.

Source of the formats: ONNX QuantizeLinear, opset 19 and later. Values outside the range saturate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from apex_runtime.precision.ranges import Range

Name = Literal["uint8", "int8", "fp8"]

# How far the range of a channel's weights is narrowed in search of the least squared error.
_NARROWINGS = np.linspace(1.0, 0.5, 26)
_FP8_LARGEST = 448.0  # of E4M3FN, which has no infinity
# A scale is never 0, nor so small that its product with another is: of a channel beside the largest one, of one in float16,
# which has few digits below, and of a tensor.
_LEAST_SHARE = 2.0**-20
_LEAST_HALF = 2.0**-20
_LEAST_SCALE = 1e-30


@dataclass(frozen=True)
class Steps:
    """How a tensor is rounded: ``value = scale * (code - zero_point)``."""

    scale: float
    zero_point: int


@dataclass(frozen=True)
class NumberFormat:
    """A format of activations and of weights. ``largest``: code of the largest magnitude; uint8 counts from a zero point.

    ``weights``: integers stay within +-``weights``. uint8 activations meet weights of 7 bits: without VNNI, processors add two
    products in 16 bits, and two of 255 * 127 do not fit.
    """

    name: Name
    largest: float
    weights: float

    @property
    def symmetric(self) -> bool:
        """Whether the zero point is always 0."""
        return self.name != "uint8"

    def steps(self, ranges: Sequence[Range]) -> list[Steps]:
        """Steps of tensors that share one scale; with uint8 each has a zero point of its own."""
        held = [item.with_zero() for item in ranges]
        widths = [item.magnitude if self.symmetric else item.largest - item.least for item in held]
        widest = max(widths) or 1.0  # what was 0 on every image says nothing of its scale
        scale = max(widest / self.largest, _LEAST_SCALE)
        return [Steps(scale, 0 if self.symmetric else int(np.clip(round(-item.least / scale), 0, 255))) for item in held]

    def round_weights(
        self, weights: np.ndarray, axis: int, dtype: type[np.floating], least: np.ndarray | float = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Codes of the shape of ``weights``, as integers or E4M3FN, and one scale of type ``dtype`` per channel of ``axis``.

        Each channel's scale is the one of 26 with the least squared error, and not below ``least``, one number per channel.
        """
        rows = np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1).astype(np.float64)
        widest = np.abs(rows).max(axis=1) / self.weights
        smallest = (widest.max() or 1.0) * _LEAST_SHARE
        least = np.maximum(least, max(smallest, _LEAST_HALF if dtype is np.float16 else _LEAST_SCALE))
        errors, scales = [], []
        for narrowing in _NARROWINGS:
            scale = np.maximum(widest * narrowing, least).astype(dtype)
            errors.append(((self._codes(rows, scale) * scale[:, None].astype(np.float64) - rows) ** 2).sum(axis=1))
            scales.append(scale)
        best = np.argmin(errors, axis=0)
        scale = np.stack(scales)[best, np.arange(len(rows))]
        codes = self._codes(rows, scale)
        shape = np.moveaxis(weights, axis, 0).shape
        return np.moveaxis(codes.reshape(shape), 0, axis).astype(self.weight_type), scale

    @property
    def weight_type(self) -> np.dtype:
        """Of the codes of weights."""
        return np.dtype(np.int8) if self.name != "fp8" else _e4m3()

    @property
    def activation_type(self) -> np.dtype:
        """Of the codes of activations."""
        return {"uint8": np.dtype(np.uint8), "int8": np.dtype(np.int8)}.get(self.name) or _e4m3()

    def _codes(self, rows: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Codes as float64."""
        held = np.clip(rows / scale[:, None].astype(np.float64), -self.weights, self.weights)
        return np.rint(held) if self.name != "fp8" else held.astype(np.float32).astype(_e4m3()).astype(np.float64)


def _e4m3() -> np.dtype:
    import onnx

    return onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.FLOAT8E4M3FN)


FORMATS: dict[Name, NumberFormat] = {
    "uint8": NumberFormat("uint8", largest=255.0, weights=63.0),
    "int8": NumberFormat("int8", largest=127.0, weights=127.0),
    "fp8": NumberFormat("fp8", largest=_FP8_LARGEST, weights=_FP8_LARGEST),
}
