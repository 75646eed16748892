"""Between MLServer's tensors and ours.

Over HTTP a request is JSON, which holds no bytes: the text of an image is base64. Over gRPC its bytes are bytes.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

import numpy as np

from apex_runtime.serving.answer import OUTPUTS
from apex_runtime.serving.refusals import invalid
from apex_runtime.serving.request import IMAGE, RequestTensor

if TYPE_CHECKING:
    from mlserver.types import InferenceRequest, RequestInput, ResponseOutput

_DATATYPES = {spec.name: spec.datatype for spec in OUTPUTS}


def request_tensors(payload: InferenceRequest) -> list[RequestTensor]:
    """The inputs of a request. Raises Refusal for text that is not base64."""
    return [_tensor(item) for item in payload.inputs]


def _tensor(item: RequestInput) -> RequestTensor:
    datatype = str(getattr(item.datatype, "value", item.datatype))  # an enum over HTTP, text over gRPC
    data = item.data.root
    if item.name == IMAGE and datatype == "BYTES":
        content = item.parameters.content_type if item.parameters else None
        data = [_bytes(each, content) for each in _flat(data)]
    return RequestTensor(item.name, datatype, tuple(item.shape), data)


def _flat(data: Any) -> list[Any]:
    if not isinstance(data, list):
        return [data]
    return [inner for each in data for inner in _flat(each)] if any(isinstance(each, list) for each in data) else data


def _bytes(element: Any, content: str | None) -> Any:
    if isinstance(element, bytes) and content != "base64":
        return element
    if not isinstance(element, str | bytes):
        return element  # a number: refused by its type later
    try:
        return base64.b64decode(element, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("image: text that is not base64.", "Over HTTP an image is base64; over gRPC send its bytes.") from error


def response_outputs(answer: dict[str, np.ndarray]) -> list[ResponseOutput]:
    """The outputs of an answer."""
    from mlserver.types import ResponseOutput

    return [_output(ResponseOutput, name, array) for name, array in answer.items()]


def _output(kind: type[ResponseOutput], name: str, array: np.ndarray) -> ResponseOutput:
    # The text in these is ASCII or UTF-8, and JSON has no bytes.
    flat = array.reshape(-1).tolist()
    data = [value.decode("utf-8") for value in flat] if array.dtype == object else flat
    return kind(name=name, datatype=_DATATYPES[name], shape=list(array.shape), data=data)
