"""One GPU behind a small protocol: memory, copies, a stream, captured graphs. No other module of ours speaks to CUDA.

cuda-python and not pycuda: pycuda (2026.1) wraps neither stream capture nor graphs, and it has to be compiled against the CUDA
toolkit of the machine, where cuda-python is a wheel that also imports without a GPU. It is imported when a device is opened.

``CudaDevice`` ran on an H200: memory, copies, a captured graph with a kernel of ours (bench/evidence/gpu-ort-cuda.json). Tests
hold the callers to the protocol through a driver of their own.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from apex_runtime.backends.reasons import ReasonCode, backend_error


class DeviceFailure(Exception):
    """A call that the device refused; ``memory`` says that it was for want of memory. Callers turn it into a reason code."""

    def __init__(self, message: str, memory: bool = False) -> None:
        super().__init__(message)
        self.memory = memory


class Device(Protocol):
    """A GPU with one stream: everything but ``allocate`` and ``free`` is queued on it, in the order of the calls.

    Addresses are integers, sizes bytes. Every method raises DeviceFailure.
    """

    @property
    def compute_capability(self) -> int:
        """89 for sm_89."""
        ...

    @property
    def stream(self) -> int:
        """The handle that libraries queue their work on."""
        ...

    def activate(self) -> None:
        """Make this the device of the calling thread: CUDA keeps one per thread."""
        ...

    def allocate(self, size: int) -> int:
        """The address of new memory."""
        ...

    def free(self, address: int) -> None:
        """Give memory back, after all work that may use it."""
        ...

    def upload(self, address: int, array: np.ndarray) -> None:
        """Copy a contiguous array to the device; the array must live until ``wait``."""
        ...

    def download(self, address: int, array: np.ndarray) -> None:
        """Fill a contiguous array from the device; it is complete after ``wait``."""
        ...

    def wait(self) -> None:
        """Return when everything that was queued is done."""
        ...

    def capture(self, work: Callable[[], None]) -> int:
        """A graph of what ``work`` queues, which is recorded and not run. The stream is usable again whatever happens."""
        ...

    def launch(self, graph: int) -> None:
        """Queue a captured graph."""
        ...

    def free_graph(self, graph: int) -> None:
        """Give a captured graph back."""
        ...

    def close(self) -> None:
        """Give the stream back. Memory and graphs are the caller's to free before."""
        ...


class CudaDevice:
    """A ``Device`` on the CUDA runtime."""

    def __init__(self, index: int = 0) -> None:
        """Raises BackendError without cuda-python, DeviceFailure when the device cannot be used."""
        self._cuda = _import_runtime()
        self._index = index
        self.activate()
        attribute = self._cuda.cudaDeviceAttr
        major = self._call("cudaDeviceGetAttribute", attribute.cudaDevAttrComputeCapabilityMajor, index)
        minor = self._call("cudaDeviceGetAttribute", attribute.cudaDevAttrComputeCapabilityMinor, index)
        self._capability = 10 * major + minor
        self._stream = self._call("cudaStreamCreateWithFlags", self._cuda.cudaStreamNonBlocking)
        # An event that blocks: waiting on the stream itself would spin on a core that the decoding threads need.
        self._done = self._call("cudaEventCreateWithFlags", self._cuda.cudaEventBlockingSync | self._cuda.cudaEventDisableTiming)
        self._graphs: dict[int, Any] = {}

    @property
    def compute_capability(self) -> int:
        """89 for sm_89."""
        return self._capability

    @property
    def stream(self) -> int:
        """The handle of the stream."""
        return int(self._stream)

    def activate(self) -> None:
        """Make this the device of the calling thread."""
        self._call("cudaSetDevice", self._index)

    def allocate(self, size: int) -> int:
        """The address of new memory."""
        return int(self._call("cudaMalloc", size))

    def free(self, address: int) -> None:
        """Give memory back; waits for the device."""
        self._call("cudaFree", address)

    def upload(self, address: int, array: np.ndarray) -> None:
        """Queue a copy to the device."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, self._stream)

    def download(self, address: int, array: np.ndarray) -> None:
        """Queue a copy from the device."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, self._stream)

    def wait(self) -> None:
        """Return when everything that was queued is done."""
        self._call("cudaEventRecord", self._done, self._stream)
        self._call("cudaEventSynchronize", self._done)

    def capture(self, work: Callable[[], None]) -> int:
        """Record what ``work`` queues."""
        # Of this thread only: what other threads allocate meanwhile is none of this capture's business.
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self._stream, mode)
        try:
            work()
        except BaseException:
            self._cuda.cudaStreamEndCapture(self._stream)  # the stream has to leave the mode; its graph is void
            raise
        graph = self._call("cudaStreamEndCapture", self._stream)
        try:
            executable = self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._cuda.cudaGraphDestroy(graph)
        self._graphs[int(executable)] = executable
        return int(executable)

    def launch(self, graph: int) -> None:
        """Queue a captured graph."""
        self._call("cudaGraphLaunch", self._graphs[graph], self._stream)

    def free_graph(self, graph: int) -> None:
        """Give a captured graph back."""
        self._call("cudaGraphExecDestroy", self._graphs.pop(graph))

    def close(self) -> None:
        """Give event and stream back."""
        self._call("cudaEventDestroy", self._done)
        self._call("cudaStreamDestroy", self._stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call the runtime; its first result is a status, the value, if any, the second."""
        status, *values = getattr(self._cuda, name)(*arguments)
        errors = self._cuda.cudaError_t
        if status != errors.cudaSuccess:
            raise DeviceFailure(f"{name}: {status.name}", memory=status == errors.cudaErrorMemoryAllocation)
        return values[0] if values else None


def open_device(index: int = 0) -> CudaDevice:
    """The GPU ``cuda:index``. Raises BackendError with a reason code."""
    try:
        return CudaDevice(index)
    except DeviceFailure as error:
        code = ReasonCode.OUT_OF_MEMORY if error.memory else ReasonCode.CUDA_QUERY_FAILED
        raise backend_error(code, f"cuda:{index} cannot be used: {error}.") from error


def _import_runtime() -> ModuleType:
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ModuleNotFoundError as error:
        raise backend_error(
            ReasonCode.CUDA_PYTHON_NOT_INSTALLED, f"Running a TensorRT plan needs cuda-python ({error})."
        ) from error
    except Exception as error:  # a wheel for another CUDA fails in its shared library, as ImportError, OSError, RuntimeError, ...
        raise backend_error(ReasonCode.CUDA_PYTHON_IMPORT_FAILED, f"cuda-python cannot be imported ({error}).") from error
