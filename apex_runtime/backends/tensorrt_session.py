"""The backends ``tensorrt`` and ``tensorrt-rtx``: one adapter that runs plans of either, with one CUDA graph per request shape.

Legend: B images, H x W input pixels, N tiles of all levels, K tiles looked at. Never executed on a GPU: unproven.

TensorRT forbids touching a context that a graph was captured from, so every request shape (B, K) has a context and a graph of its
own. All of them share the input and output buffers and one piece of scratch memory, for they run one after the other.
"""

from __future__ import annotations

import contextlib
import logging
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from apex_runtime.backends.captured import RequestShape, RequestShapes
from apex_runtime.backends.device import Device, DeviceFailure
from apex_runtime.backends.device_buffers import DeviceBuffers
from apex_runtime.backends.onnx_contract import expected_inputs, expected_outputs, read_onnx
from apex_runtime.backends.ort import check_feeds, graph_feeds
from apex_runtime.backends.reasons import ReasonCode, argument_error, backend_error
from apex_runtime.backends.session import Tiles, in_all, per_level
from apex_runtime.backends.tensorrt_engine import TensorRTEngine, for_want_of_memory, plan_does_not_fit
from apex_runtime.model_info import ModelInfo

_SCRATCH = "scratch memory"  # no tensor has a space in its name
_LOG = logging.getLogger(__name__)


@dataclass
class _Prepared:
    """A context whose shapes and addresses are set, its numbers of tiles on the host, and the graph once it is captured."""

    context: Any
    budgets: dict[str, np.ndarray] = field(default_factory=dict)  # the context knows their addresses
    graph: int | None = None


class TensorRTSession:
    """A plan on a GPU. Implements ``Session``; ``run`` may be called from one thread at a time. It owns its device."""

    def __init__(self, model: Path, plan: Path, flavour: str, device: Device) -> None:
        """``model``: the ONNX file that ``plan`` was built from; the device is closed with the session, or when this fails.

        Raises ModelError, BackendError.
        """
        self._flavour, self._plan, self._device = flavour, plan, device
        self.graph_refusal = ""
        self._buffers = DeviceBuffers(device)
        self._prepared: RequestShapes[_Prepared] = RequestShapes(lambda held: _free_graph(device, held))
        resources = contextlib.ExitStack()
        resources.callback(device.close)
        resources.callback(self._buffers.close)
        resources.callback(self._prepared.clear)
        self._finalizer = weakref.finalize(self, _give_back, device, resources)
        try:
            self._info = read_onnx(model).info
            self._arrays = [spec for spec in expected_inputs(self._info) if spec.dtype != "int64"]  # the others stay on the host
            self._engine = TensorRTEngine(plan, flavour, self._info, device.compute_capability)
        except BaseException:
            self.close()
            raise
        resources.callback(self._engine.close)

    @property
    def info(self) -> ModelInfo:
        """The model's passport."""
        return self._info

    @property
    def name(self) -> str:
        """The backend's name."""
        return self._flavour

    @property
    def max_batch(self) -> int:
        """The most images that ``run`` takes at once."""
        return self._engine.max_batch

    def run(self, images: np.ndarray, tiles: Tiles, tile_bonus: np.ndarray) -> dict[str, np.ndarray]:
        """Images uint8 [B,H,W,3], K, bonus float32 [B,N] to every output by name. Raises UsageError, BackendError."""
        check_feeds(self._info, images, tiles, tile_bonus)
        self._check_batch(len(images))
        shape = (len(images), per_level(tiles))
        feeds = {name: np.ascontiguousarray(array) for name, array in graph_feeds(self._info, images, tiles, tile_bonus).items()}
        try:
            return self._execute(feeds, shape)
        except DeviceFailure as error:
            self._abandon(shape)
            code = ReasonCode.OUT_OF_MEMORY if error.memory else ReasonCode.EXECUTION_FAILED
            message = f"{self._flavour} failed on {len(images)} image(s) with {in_all(tiles)} tile(s): {error}."
            raise backend_error(code, message) from error
        except BaseException:
            self._abandon(shape)
            raise

    def close(self) -> None:
        """Give back everything on the device; the session cannot run afterwards. Happens by itself when it is forgotten."""
        self._finalizer()

    def _abandon(self, shape: RequestShape) -> None:
        """After a failure half way: the request shape is not trusted, the next run prepares it afresh."""
        with contextlib.suppress(DeviceFailure):
            self._device.wait()  # for copies that are under way from and to arrays which are about to go
        self._prepared.drop(shape)

    def _check_batch(self, batch: int) -> None:
        if batch > self.max_batch:
            raise argument_error(
                ReasonCode.BATCH_NOT_IN_PLAN, f"{self._plan}: {batch} images at once, the plan takes up to {self.max_batch}."
            )

    def _execute(self, feeds: dict[str, np.ndarray], shape: RequestShape) -> dict[str, np.ndarray]:
        batch, tiles = shape[0], sum(shape[1])
        self._device.activate()
        self._reserve(batch)
        for spec in self._arrays:
            self._device.upload(self._buffers[spec.name], feeds[spec.name])
        prepared = self._prepared.get(shape)
        first = prepared is None
        if prepared is None:
            self._prepared.make_room()
            prepared = self._prepare(feeds, batch, tiles)
            self._prepared.put(shape, prepared)
        if prepared.graph is None:
            self._enqueue(prepared.context)
        else:
            self._device.launch(prepared.graph)
        outputs = {spec.name: np.empty(spec.sized(batch, tiles), spec.dtype) for spec in expected_outputs(self._info)}
        for name, array in outputs.items():
            self._device.download(self._buffers[name], array)
        self._device.wait()
        if first:  # what just ran was the warm-up
            self._capture(prepared)
        return outputs

    def _reserve(self, batch: int) -> None:
        """Buffers for this batch and any number of tiles. What grows moves, and captured graphs know the old addresses."""
        specs = (*self._arrays, *expected_outputs(self._info))
        shapes = {spec.name: spec.sized(batch, self._info.tiles.count) for spec in specs}
        sizes = {spec.name: int(np.prod(shapes[spec.name])) * np.dtype(spec.dtype).itemsize for spec in specs}
        sizes[_SCRATCH] = self._engine.scratch_bytes
        if not self._buffers.fits(sizes):
            self._prepared.clear()
            self._buffers.reserve(sizes)

    def _prepare(self, feeds: dict[str, np.ndarray], batch: int, tiles: int) -> _Prepared:
        prepared = _Prepared(self._engine.context(self._buffers[_SCRATCH]))
        context = prepared.context
        if context is None:
            raise self._failure("no execution context")
        for spec in expected_inputs(self._info):
            if spec.dtype == "int64":  # a shape tensor: the library reads its values on the host
                prepared.budgets[spec.name] = feeds[spec.name]
                accepted = context.set_tensor_address(spec.name, feeds[spec.name].ctypes.data)
            else:
                accepted = context.set_input_shape(spec.name, feeds[spec.name].shape)
                accepted = accepted and context.set_tensor_address(spec.name, self._buffers[spec.name])
            if not accepted:
                raise self._failure(f"input {spec.name} is refused")
        self._check_shapes(context, batch, tiles)
        for spec in expected_outputs(self._info):
            if not context.set_tensor_address(spec.name, self._buffers[spec.name]):
                raise self._failure(f"output {spec.name} is refused")
        return prepared

    def _check_shapes(self, context: Any, batch: int, tiles: int) -> None:
        try:
            missing = context.infer_shapes()
        except RuntimeError as error:
            raise self._failure(f"shape inference: {error}") from error
        if missing:
            raise self._failure(f"shapes of {', '.join(missing)} are not known")
        for spec in expected_outputs(self._info):
            found = tuple(context.get_tensor_shape(spec.name))
            if found != spec.sized(batch, tiles):
                raise plan_does_not_fit(self._plan, f"{spec.name} has shape {found}, expected {spec.sized(batch, tiles)}")

    def _enqueue(self, context: Any) -> None:
        if not context.execute_async_v3(self._device.stream):
            raise self._failure("execution is refused")

    def _capture(self, prepared: _Prepared) -> None:
        """Record the context for later runs. A refusal costs speed and nothing else; it is said once, and not tried again."""
        if self.graph_refusal:
            return
        capturable = getattr(prepared.context, "is_stream_capturable", None)  # TensorRT for RTX can tell beforehand
        try:
            if capturable is not None and not capturable(self._device.stream):
                raise DeviceFailure("the plan cannot be captured")
            prepared.graph = self._device.capture(lambda: self._enqueue(prepared.context))
        except DeviceFailure as error:
            self.graph_refusal = ReasonCode.CUDA_GRAPH_UNAVAILABLE.value
            _LOG.warning("%s runs without CUDA graphs: %s [%s]", self._flavour, error, self.graph_refusal)

    def _failure(self, what: str) -> DeviceFailure:
        words = self._engine.complaint()
        return DeviceFailure(f"{what}: {words}", memory=for_want_of_memory(words))


def _free_graph(device: Device, prepared: _Prepared) -> None:
    if prepared.graph is not None:
        with contextlib.suppress(DeviceFailure):  # a device that failed for good has taken its graphs along
            device.free_graph(prepared.graph)


def _give_back(device: Device, resources: contextlib.ExitStack) -> None:
    with contextlib.suppress(DeviceFailure):  # whichever thread this is
        device.activate()
    with contextlib.suppress(DeviceFailure):  # all are tried; after a failure for good nothing is left to free
        resources.close()
