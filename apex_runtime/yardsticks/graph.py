"""The graph of a yardstick in ONNX Runtime on the CPU: one image input, named outputs, and how long each call takes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from apex_runtime.backends.onnx_contract import graph_inputs, read_graph
from apex_runtime.backends.ort import check_threads, first_line, open_session, session_options
from apex_runtime.backends.reasons import ReasonCode, backend_error
from apex_runtime.clock import milliseconds_since
from apex_runtime.errors import ModelError
from apex_runtime.precision.graph_precision import precision_of
from apex_runtime.precision.plan import Precision
from apex_runtime.yardsticks.description import Input

if TYPE_CHECKING:
    import onnx

EXPORT = "Export the detector with its weights inside one file, and put that beside the description; see docs/yardsticks.md."
_TYPES = ("float32", "float16", "uint8")

Shape = tuple[int | None, ...]  # None: known at run time only


@dataclass(frozen=True)
class GraphFacts:
    """What the file says: ``size`` (height, width) of its input, ``batched`` where a call may have several images.

    ``sizes``: the name and the type of a second input that wants width and height, where there is one.
    """

    input_name: str
    dtype: np.dtype
    sizes: tuple[str, np.dtype] | None
    size: tuple[int, int]
    batched: bool
    outputs: Mapping[str, Shape]
    precision: Precision


class Graph:
    """Calls of the graph; ``milliseconds`` has one entry per ``run``."""

    def __init__(self, path: Path, wanted: Input, threads: int | None = None) -> None:
        """Raises UsageError, ModelError, BackendError."""
        check_threads(threads)
        data, model = read_graph(path, EXPORT)
        self.facts = graph_facts(path, model, wanted)
        self.milliseconds: list[float] = []
        self._path = path
        self._session = open_session(path, data, session_options(threads), ["CPUExecutionProvider"], EXPORT)

    def call(self, images: np.ndarray, names: list[str]) -> list[np.ndarray]:
        """The outputs of these ``names`` for a batch, nothing else. Raises BackendError."""
        try:
            found: list[np.ndarray] = self._session.run(names, {self.facts.input_name: images} | self._sizes(len(images)))
        except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
            message = f"{self._path}: ONNX Runtime failed on {len(images)} image(s) ({first_line(error)})."
            raise backend_error(ReasonCode.EXECUTION_FAILED, message, remedy=EXPORT) from error
        return found

    def run(self, images: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
        """The same by name, and timed. Raises BackendError, naming the output, when one is not finite."""
        started = time.perf_counter()
        found = self.call(images, names)
        self.milliseconds.append(milliseconds_since(started))
        outputs = dict(zip(names, found, strict=True))
        for name, array in outputs.items():
            bad = int(np.count_nonzero(~np.isfinite(array)))
            if bad:
                message = f"{self._path}: output {name!r}: {bad} of {array.size} values are NaN or infinite."
                raise backend_error(ReasonCode.NON_FINITE_OUTPUT, message, remedy="Export the detector again.")
        return outputs

    def _sizes(self, batch: int) -> dict[str, np.ndarray]:
        if self.facts.sizes is None:
            return {}
        name, dtype = self.facts.sizes
        return {name: np.tile(np.array(self.facts.size[::-1], dtype), (batch, 1))}


def graph_facts(path: Path, model: onnx.ModelProto, wanted: Input) -> GraphFacts:
    """Check the inputs of the graph against the description. Raises ModelError."""
    image, sizes = _inputs(path, model, wanted)
    dtype = _dtype_of(image)
    if dtype not in _TYPES:
        message = f"{path}: input {image.name} has type {dtype}, expected one of {', '.join(_TYPES)}."
        raise ModelError(message, "Export the detector with such an input.", path=path)
    batch, height, width = _image_shape(path, image, wanted)
    if batch not in (None, 1):
        raise ModelError(f"{path}: input {image.name} is fixed to {batch} images.", "Export it for one image.", path=path)
    return GraphFacts(
        input_name=image.name,
        dtype=np.dtype(dtype),
        sizes=None if sizes is None else (sizes.name, np.dtype(_dtype_of(sizes))),
        size=_size(path, (height, width), wanted),
        batched=batch is None,
        outputs={value.name: _shape_of(value) for value in model.graph.output},
        precision=precision_of(model),
    )


def _inputs(path: Path, model: onnx.ModelProto, wanted: Input) -> tuple[onnx.ValueInfoProto, onnx.ValueInfoProto | None]:
    """The image, and the one that the description calls ``sizes``. Raises ModelError when there are others."""
    inputs = graph_inputs(model)
    images = [value for value in inputs if value.name != wanted.sizes]
    sizes = next((value for value in inputs if value.name == wanted.sizes), None)
    if len(images) != 1 or (wanted.sizes is not None and sizes is None):
        names = ", ".join(value.name for value in inputs) or "none"
        asked = "one image" if wanted.sizes is None else f"one image and {wanted.sizes!r}"
        message = f"{path}: its inputs are {names}; {asked} is all that the description tells of."
        raise ModelError(message, "A second input for width and height is named by input.sizes; no others can be fed.", path=path)
    return images[0], sizes


def _image_shape(path: Path, value: onnx.ValueInfoProto, wanted: Input) -> Shape:
    """Batch, height and width. Raises ModelError unless the input is an image of three channels in the described layout."""
    shape = _shape_of(value)
    order = (0, 2, 3, 1) if wanted.layout == "nchw" else (0, 1, 2, 3)
    if len(shape) != 4 or shape[order[3]] not in (None, 3):
        message = f"{path}: input {value.name} has the shape {shown(shape)}, which is no {wanted.layout} image of 3 channels."
        raise ModelError(message, "Correct input.layout in the description.", path=path)
    batch, height, width, _channels = (shape[axis] for axis in order)
    return batch, height, width


def _size(path: Path, found: Shape, wanted: Input) -> tuple[int, int]:
    """The size of the graph, or the described one where the graph has none. Raises ModelError when they contradict."""
    for side, name in enumerate(("height", "width")):
        asked, has = (wanted.size or (None, None))[side], found[side]
        if asked is None and has is None:
            raise ModelError(f"{path}: the graph has no fixed {name}.", "Give input.size in the description.", path=path)
        if asked is not None and has is not None and asked != has:
            message = f"{path}: the graph has the {name} {has}, the description says {asked}."
            raise ModelError(message, "Correct input.size in the description, or leave it out.", path=path)
    height, width = (has if has is not None else asked for has, asked in zip(found, wanted.size or found, strict=True))
    assert height is not None and width is not None
    return height, width


def _shape_of(value: onnx.ValueInfoProto) -> Shape:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)


def _dtype_of(value: onnx.ValueInfoProto) -> str:
    from onnx.helper import tensor_dtype_to_np_dtype

    code = value.type.tensor_type.elem_type
    return str(tensor_dtype_to_np_dtype(code)) if code else "none"


def shown(shape: Shape) -> str:
    """A shape for people: [1, 37, ?]."""
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"
