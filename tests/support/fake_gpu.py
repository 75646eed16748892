"""A GPU that is not there: a device whose stream runs when it is waited for, and TensorRT's runtime API on top of it.

The device keeps real memory, so that a plan "runs" by handing its inputs to ONNX Runtime and what comes out is compared with
ONNX Runtime asked directly. It fails on what real ones punish later or elsewhere: addresses of freed memory, copies beyond a
buffer, arrays that are gone before the copy, waiting inside a capture, touching a context after its capture.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from apex_runtime.backends.device import DeviceFailure
from apex_runtime.backends.onnx_contract import TensorSpec, expected_inputs, expected_outputs
from apex_runtime.backends.ort import OrtSession

Work = Callable[[], None]


class FakeDevice:
    """Implements ``Device``. ``calls`` lists what was asked, ``fail`` maps a method to the failures of its next calls."""

    stream = 7001

    def __init__(self, compute_capability: int = 89, memory: int = 1 << 30) -> None:
        self.compute_capability, self.memory = compute_capability, memory
        self.blocks: dict[int, bytearray] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.queue: list[Work] = []
        self.recording: list[Work] | None = None
        self.calls: list[str] = []
        self.fail: dict[str, list[DeviceFailure]] = {}
        self.closed = False
        self._next = 0x10000

    def _called(self, name: str, what: str = "") -> None:
        assert not self.closed, f"{name} after close"
        self.calls.append(f"{name} {what}".strip())
        if self.fail.get(name):
            raise self.fail[name].pop(0)

    def enqueue(self, work: Work) -> None:
        """Put work on the stream, or into the graph that is being recorded."""
        (self.queue if self.recording is None else self.recording).append(work)

    def block(self, address: int, size: int) -> memoryview:
        """The memory at an address that was allocated, of which ``size`` bytes are used."""
        assert address in self.blocks, f"{address:#x} is not allocated"
        assert size <= len(self.blocks[address]), f"{size} bytes into {len(self.blocks[address])}"
        return memoryview(self.blocks[address])[:size]

    def activate(self) -> None:
        self._called("activate")

    def allocate(self, size: int) -> int:
        self._called("allocate", str(size))
        if sum(map(len, self.blocks.values())) + size > self.memory:
            raise DeviceFailure("out of memory", memory=True)
        self._next += 0x1000000
        self.blocks[self._next] = bytearray(size)
        return self._next

    def free(self, address: int) -> None:
        self._called("free")
        assert not self.queue, "memory is freed while work is queued"
        del self.blocks[address]

    def upload(self, address: int, array: np.ndarray) -> None:
        self._called("upload", str(array.nbytes))
        assert self.recording is None and array.flags.c_contiguous
        alive = weakref.ref(array)

        def copy() -> None:
            source = alive()
            assert source is not None, "the array was gone before it was copied"
            self.block(address, source.nbytes)[:] = source.tobytes()

        self.enqueue(copy)

    def download(self, address: int, array: np.ndarray) -> None:
        self._called("download", str(array.nbytes))
        assert self.recording is None and array.flags.c_contiguous
        alive = weakref.ref(array)

        def copy() -> None:
            target = alive()
            assert target is not None, "the array was gone before it was filled"
            target[...] = np.frombuffer(self.block(address, target.nbytes), target.dtype).reshape(target.shape)

        self.enqueue(copy)

    def wait(self) -> None:
        self._called("wait")
        assert self.recording is None, "waiting inside a capture"
        queue, self.queue = self.queue, []
        for work in queue:
            work()

    def capture(self, work: Work) -> int:
        self._called("capture")
        self.recording = []
        try:
            work()
            graph = 1 + len(self.calls)
            self.graphs[graph] = self.recording
        finally:
            self.recording = None
        return graph

    def launch(self, graph: int) -> None:
        self._called("launch")
        self.queue += self.graphs[graph]

    def free_graph(self, graph: int) -> None:
        self._called("free_graph")
        del self.graphs[graph]

    def close(self) -> None:
        self._called("close")
        self.closed = True


class _Named(str):
    """A member of an enumeration."""

    @property
    def name(self) -> str:
        return str(self)


def _enumeration(*names: str) -> SimpleNamespace:
    return SimpleNamespace(**{name: _Named(name) for name in names})


_TYPES = {"float32": _Named("FLOAT"), "int64": _Named("INT64"), "uint8": _Named("UINT8")}


class FakeTensorRT:
    """The runtime half of the Python API. Plans are real models: a context runs ``model`` by ONNX Runtime on the fake device."""

    __version__ = "11.0.fake"
    TensorIOMode = _enumeration("INPUT", "OUTPUT")
    TensorLocation = _enumeration("HOST", "DEVICE")
    ExecutionContextAllocationStrategy = _enumeration("STATIC", "USER_MANAGED")
    DynamicShapesKernelSpecializationStrategy = _enumeration("LAZY", "EAGER", "NONE")

    def __init__(self, model: Path, device: FakeDevice, max_batch: int = 4) -> None:
        severity = SimpleNamespace(ERROR="error", INTERNAL_ERROR="internal", VERBOSE="verbose")
        self.ILogger = type("ILogger", (), {"Severity": severity})
        self.device, self.max_batch = device, max_batch
        self.reference = OrtSession(model, 1)
        info = self.reference.info
        self.inputs = {spec.name: spec for spec in expected_inputs(info)}
        self.outputs = {spec.name: spec for spec in expected_outputs(info)}
        self.locations = {name: "HOST" if spec.dtype == "int64" else "DEVICE" for name, spec in self.inputs.items()}
        self.contexts: list[FakeContext] = []
        self.caches: list[FakeRuntimeCache] = []
        self.loads = self.capturable = self.cache_fits = True
        self.words = ""  # what the library logs when it refuses
        self.refuse: list[str] = []  # methods of contexts whose next call answers no
        self.logger: Any = None

    def Runtime(self, logger: Any) -> SimpleNamespace:
        self.logger = logger
        return SimpleNamespace(deserialize_cuda_engine=lambda _data: FakeEngine(self) if self.accepts(self.loads) else None)

    def accepts(self, answer: bool) -> bool:
        """The answer; a no is logged."""
        if not answer and self.words:
            self.logger.log("error", self.words)
        return answer

    def accepts_call(self, method: str) -> bool:
        """No, once, for what a test listed in ``refuse``."""
        if method in self.refuse:
            self.refuse.remove(method)
            return self.accepts(False)
        return True


class FakeEngine:
    """What ``deserialize_cuda_engine`` returns."""

    device_memory_size_v2 = 4096

    def __init__(self, trt: FakeTensorRT) -> None:
        self.trt = trt
        self.specs: dict[str, TensorSpec] = trt.inputs | trt.outputs
        self.num_io_tensors = len(self.specs)

    def get_tensor_name(self, index: int) -> str:
        return list(self.specs)[index]

    def get_tensor_mode(self, name: str) -> _Named:
        return _Named("INPUT" if name in self.trt.inputs else "OUTPUT")

    def get_tensor_dtype(self, name: str) -> _Named:
        return _TYPES[self.specs[name].dtype]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(-1 if size is None else size for size in self.specs[name].shape)

    def get_tensor_location(self, name: str) -> _Named:
        return _Named(self.trt.locations[name])

    def get_tensor_profile_shape(self, name: str, _profile: int) -> list[tuple[int, ...]]:
        return [self.specs[name].sized(batch, 0) for batch in (1, 1, self.trt.max_batch)]

    def create_runtime_config(self) -> FakeRuntimeConfig:
        return FakeRuntimeConfig(self.trt)

    def create_execution_context(self, how: Any) -> FakeContext | None:
        strategy = how.strategy if isinstance(how, FakeRuntimeConfig) else how
        assert strategy == "USER_MANAGED", "scratch memory is ours"
        if not self.trt.accepts_call("create_execution_context"):
            return None
        self.trt.contexts.append(FakeContext(self.trt, how))
        return self.trt.contexts[-1]


class FakeRuntimeConfig:
    """How contexts of TensorRT for RTX are made."""

    def __init__(self, trt: FakeTensorRT) -> None:
        self.trt = trt
        self.strategy: str = "STATIC"
        self.dynamic_shapes_kernel_specialization_strategy: str = "LAZY"
        self.cache: FakeRuntimeCache | None = None

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> FakeRuntimeCache:
        self.trt.caches.append(FakeRuntimeCache(self.trt))
        return self.trt.caches[-1]

    def set_runtime_cache(self, cache: FakeRuntimeCache) -> bool:
        self.cache = cache
        return True


class FakeRuntimeCache:
    """Holds "compiled kernels": one byte per context that ran."""

    def __init__(self, trt: FakeTensorRT) -> None:
        self.trt = trt
        self.data = b""

    def deserialize(self, data: bytes) -> bool:
        if self.trt.cache_fits:
            self.data = bytes(data)
        return self.trt.cache_fits

    def serialize(self) -> bytes:
        return self.data


class FakeContext:
    """An execution context: reads its inputs from the device when the stream comes to it, and its budgets when it is enqueued."""

    def __init__(self, trt: FakeTensorRT, how: Any) -> None:
        self.trt = trt
        self.cache = how.cache if isinstance(how, FakeRuntimeConfig) else None
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.scratch = (0, 0)
        self.captured = False
        if isinstance(how, FakeRuntimeConfig):  # the other flavour has no such question
            self.is_stream_capturable = lambda stream: stream == trt.device.stream and trt.capturable

    def _may_change(self) -> None:
        assert not self.captured, "the context is changed after a graph was captured from it"

    def set_device_memory(self, address: int, size: int) -> None:
        self._may_change()
        self.trt.device.block(address, size)
        self.scratch = (address, size)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._may_change()
        self.shapes[name] = tuple(shape)
        return self.trt.accepts_call("set_input_shape") and shape[0] <= self.trt.max_batch

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._may_change()
        self.addresses[name] = address
        return self.trt.accepts_call("set_tensor_address")

    def _budgets(self) -> tuple[int, ...]:
        """K of every level, read from the host's memory as the library does."""
        names = [name for name, where in self.trt.locations.items() if where == "HOST"]
        return tuple(ctypes.c_int64.from_address(self.addresses[name]).value for name in names)

    def infer_shapes(self) -> list[str]:
        if not self.trt.accepts_call("infer_shapes"):
            raise RuntimeError("a shape is negative")
        return [name for name, where in self.trt.locations.items() if where == "DEVICE" and name not in self.shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.trt.outputs[name].sized(self.shapes["images"][0], sum(self._budgets()))

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == self.trt.device.stream and self.scratch[0] in self.trt.device.blocks
        assert set(self.addresses) == set(self.trt.inputs) | set(self.trt.outputs)
        if not self.trt.accepts_call("execute_async_v3"):
            return False
        budgets = self._budgets()  # on the host, now: a graph keeps what they were
        self.captured = self.captured or self.trt.device.recording is not None
        self.trt.device.calls.append("execute")
        self.trt.device.enqueue(lambda: self._compute(budgets))
        return True

    def _compute(self, budgets: tuple[int, ...]) -> None:
        arrays = [self._input(name) for name, where in self.trt.locations.items() if where == "DEVICE"]
        tiles = budgets[0] if len(budgets) == 1 else budgets
        outputs = self.trt.reference.run(arrays[0], tiles, np.concatenate(arrays[1:], axis=1))
        for name, value in outputs.items():
            self.trt.device.block(self.addresses[name], value.nbytes)[:] = value.tobytes()
        if self.cache is not None:
            self.cache.data += b"k"

    def _input(self, name: str) -> np.ndarray:
        spec, shape = self.trt.inputs[name], self.shapes[name]
        size = int(np.prod(shape)) * np.dtype(spec.dtype).itemsize
        return np.frombuffer(bytes(self.trt.device.block(self.addresses[name], size)), spec.dtype).reshape(shape)
