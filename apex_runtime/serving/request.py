"""From the tensors of a request (Open Inference Protocol) to an image and a budget, or a refusal that says what is wrong.

``image``: BYTES, one element, an encoded file; or ``pixels``: UINT8 [h,w,3] RGB. ``budget``: one number or text, may be left out.
Any of them may have leading dimensions of 1, which Triton asks for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from apex_runtime.data.image import decode_picture
from apex_runtime.data.image_header import read_header
from apex_runtime.errors import ImageError, UsageError
from apex_runtime.routing.budget import EXAMPLES, Budget, parse_budget
from apex_runtime.serving.refusals import invalid, too_large
from apex_runtime.serving.settings import ServingSettings

IMAGE, PIXELS, BUDGET = "image", "pixels", "budget"
INPUTS = (IMAGE, PIXELS, BUDGET)
INTEGERS = ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")
FLOATS = ("FP16", "FP32", "FP64")
_GIVE = "Give image (BYTES [1,1], an encoded file) or pixels (UINT8 [1,height,width,3], RGB)."


@dataclass(frozen=True)
class RequestTensor:
    """An input of a request. ``data``: an array or (nested) list of numbers; of BYTES a list with bytes or text."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Any


@dataclass(frozen=True, eq=False)
class DetectionRequest:
    """What is asked for: an encoded file or an array uint8 [h,w,3], and the budget."""

    image: bytes | np.ndarray
    budget: Budget

    def pixels(self, limit: int) -> np.ndarray:
        """The image, uint8 [h,w,3] RGB. Raises Refusal when it cannot be decoded or has more than ``limit`` pixels."""
        return self.image if isinstance(self.image, np.ndarray) else _decoded(self.image, limit)


def read_request(tensors: Sequence[RequestTensor], settings: ServingSettings) -> DetectionRequest:
    """Check the inputs of a request. Nothing is decoded here. Raises Refusal."""
    given = {tensor.name: tensor for tensor in tensors}
    if len(given) != len(tensors):
        raise invalid("an input is given twice.", f"The inputs are {', '.join(INPUTS)}.")
    unknown = sorted(set(given) - set(INPUTS))
    if unknown:
        raise invalid(f"input {unknown[0]!r} is unknown.", f"The inputs are {', '.join(INPUTS)}.")
    if (IMAGE in given) == (PIXELS in given):
        raise invalid("both image and pixels are given." if IMAGE in given else "there is no image.", _GIVE)
    image = _encoded(given[IMAGE], settings) if IMAGE in given else _raw(given[PIXELS], settings)
    return DetectionRequest(image, _budget(given[BUDGET]) if BUDGET in given else parse_budget(settings.budget))


def read_timeout(value: Any, default_ms: float) -> float:
    """Seconds from the parameter ``timeout`` of a request: microseconds in the protocol; clients send 0 where none was set.

    Raises Refusal.
    """
    if value is None or value == 0:
        return default_ms / 1000
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise invalid(f"timeout: {value!r} is not a number of microseconds.", "For example 500000 for half a second.")
    return value / 1e6


def _encoded(tensor: RequestTensor, settings: ServingSettings) -> bytes:
    value = _only(tensor)
    if tensor.datatype != "BYTES" or not isinstance(value, bytes):
        raise invalid(f"image: datatype {tensor.datatype}, expected BYTES.", _GIVE)
    if len(value) > settings.max_image_bytes:
        raise too_large(f"image: {len(value)} bytes, the limit is {settings.max_image_bytes}.", "Send a smaller image.")
    return value


def _raw(tensor: RequestTensor, settings: ServingSettings) -> np.ndarray:
    shape = tensor.shape
    while len(shape) > 3 and shape[0] == 1:
        shape = shape[1:]
    if tensor.datatype != "UINT8" or len(shape) != 3 or shape[2] != 3 or min(shape) < 1:
        raise invalid(f"pixels: {tensor.datatype} {list(tensor.shape)}, expected UINT8 [1,height,width,3].", _GIVE)
    _check_pixels(shape[0], shape[1], settings.max_pixels)
    array = _numbers(tensor)
    if array.dtype.kind not in "iu" or array.size != math.prod(shape) or array.min() < 0 or array.max() > 255:
        raise invalid(f"pixels: {array.size} values, expected {math.prod(shape)} whole numbers from 0 to 255.", _GIVE)
    return np.ascontiguousarray(array.reshape(shape), np.uint8)


def _numbers(tensor: RequestTensor) -> np.ndarray:
    try:
        return np.asarray(tensor.data)
    except (ValueError, OverflowError, TypeError) as error:
        raise invalid(f"{tensor.name}: its data is not an array of numbers.", "Flatten it, or nest it by its shape.") from error


def _only(tensor: RequestTensor) -> Any:
    """The one element of a tensor."""
    data = tensor.data.tolist() if isinstance(tensor.data, np.ndarray) and tensor.data.size == 1 else tensor.data
    while isinstance(data, list | tuple) and len(data) == 1:
        data = data[0]
    if any(side != 1 for side in tensor.shape) or isinstance(data, list | tuple | np.ndarray):
        raise invalid(f"{tensor.name}: shape {list(tensor.shape)}, expected one element.", "One image per request.")
    return data


def _budget(tensor: RequestTensor) -> Budget:
    value = _only(tensor)
    try:
        return parse_budget(_said(tensor, value))
    except (UsageError, ValueError, TypeError, OverflowError) as error:
        cause = error.message if isinstance(error, UsageError) else f"budget: {value!r} is not a {tensor.datatype}."
        raise invalid(cause, EXAMPLES) from error


def _said(tensor: RequestTensor, value: Any) -> str | int | float:
    """A budget as a person would write it: whole numbers count tiles, others are shares, text is as on the command line."""
    if tensor.datatype == "BYTES":
        return value.decode("ascii") if isinstance(value, bytes) else str(value)
    if tensor.datatype in INTEGERS and not isinstance(value, bool) and int(value) == value:
        return int(value)
    if tensor.datatype in FLOATS:
        # 0.7 in four bytes is 0.699999988: its shortest text is what the sender meant.
        narrow = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64}[tensor.datatype]
        with np.errstate(over="ignore"):  # refused as infinite
            return float(str(narrow(value)))
    raise ValueError(tensor.datatype)


def _decoded(data: bytes, limit: int) -> np.ndarray:
    try:
        header = read_header(data)
        if header is not None:
            _check_pixels(header.height, header.width, limit)
        return decode_picture(data, "image").pixels
    except ValueError as error:
        raise invalid(f"image: the file is damaged: {error}.", "Send JPEG, PNG, BMP, TIFF or WebP.") from error
    except ImageError as error:
        raise invalid(error.message, error.remedy) from error


def _check_pixels(height: int, width: int, limit: int) -> None:
    if height * width > limit:
        raise too_large(f"image: {width}x{height} pixels, the limit is {limit}.", "Send a smaller image, or cut it into several.")
