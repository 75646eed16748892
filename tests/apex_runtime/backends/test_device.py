"""CudaDevice against a stand-in for cuda-python, and against the names of cuda-python itself where it is installed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from apex_runtime.backends import device as device_module
from apex_runtime.backends.device import CudaDevice, DeviceFailure, open_device
from apex_runtime.backends.device_buffers import DeviceBuffers
from apex_runtime.errors import BackendError


class _Status:
    """A member of cudaError_t."""

    def __init__(self, name: str) -> None:
        self.name = name


class FakeRuntime:
    """``cuda.bindings.runtime``: every call succeeds and is noted, except the one that a test lets fail."""

    def __init__(self) -> None:
        self.values = {
            "cudaDeviceGetAttribute": 8,
            "cudaStreamCreateWithFlags": 70,
            "cudaEventCreateWithFlags": 80,
            "cudaMalloc": 0x5000,
            "cudaStreamEndCapture": 90,
            "cudaGraphInstantiate": 91,
        }
        self.calls: list[tuple[str, tuple]] = []
        self.fail: dict[str, str] = {}
        names = ("cudaSuccess", "cudaErrorMemoryAllocation", "cudaErrorNoDevice")
        self.cudaError_t = SimpleNamespace(**{name: _Status(name) for name in names})
        self.cudaDeviceAttr = SimpleNamespace(
            cudaDevAttrComputeCapabilityMajor="major", cudaDevAttrComputeCapabilityMinor="minor"
        )
        self.cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice="in", cudaMemcpyDeviceToHost="out")
        self.cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal="thread")
        self.cudaStreamNonBlocking, self.cudaEventBlockingSync, self.cudaEventDisableTiming = 1, 1, 2

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: object) -> tuple:
            self.calls.append((name, arguments))
            status = getattr(self.cudaError_t, self.fail.get(name, "cudaSuccess"))
            return (status, self.values[name]) if name in self.values else (status,)

        return call

    def names(self) -> list[str]:
        found, self.calls = [name for name, _ in self.calls], []
        return found


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:
    made = FakeRuntime()
    monkeypatch.setattr(device_module, "_import_runtime", lambda: made)
    return made


def test_opening_takes_the_device_a_stream_and_an_event_that_does_not_spin(runtime: FakeRuntime) -> None:
    device = CudaDevice(2)
    assert (device.compute_capability, device.stream) == (88, 70)
    assert runtime.calls[0] == ("cudaSetDevice", (2,))
    assert ("cudaEventCreateWithFlags", (3,)) in runtime.calls
    runtime.names()
    device.close()
    assert runtime.names() == ["cudaEventDestroy", "cudaStreamDestroy"]


def test_copies_are_queued_on_the_stream_with_their_size(runtime: FakeRuntime) -> None:
    device = CudaDevice()
    runtime.names()
    array = np.zeros((3, 5), np.float32)
    address = device.allocate(60)
    device.upload(address, array)
    device.download(address, array)
    device.wait()
    device.free(address)
    host = array.ctypes.data
    assert runtime.calls == [
        ("cudaMalloc", (60,)),
        ("cudaMemcpyAsync", (0x5000, host, 60, "in", 70)),
        ("cudaMemcpyAsync", (host, 0x5000, 60, "out", 70)),
        ("cudaEventRecord", (80, 70)),
        ("cudaEventSynchronize", (80,)),
        ("cudaFree", (0x5000,)),
    ]


def test_a_graph_is_captured_launched_and_freed(runtime: FakeRuntime) -> None:
    device = CudaDevice()
    runtime.names()
    graph = device.capture(lambda: runtime.calls.append(("work", ())))
    device.launch(graph)
    device.free_graph(graph)
    assert runtime.names() == [
        "cudaStreamBeginCapture",
        "work",
        "cudaStreamEndCapture",
        "cudaGraphInstantiate",
        "cudaGraphDestroy",
        "cudaGraphLaunch",
        "cudaGraphExecDestroy",
    ]


@pytest.mark.parametrize("error", [DeviceFailure("refused"), KeyboardInterrupt()])
def test_a_capture_that_fails_ends_on_the_stream(runtime: FakeRuntime, error: BaseException) -> None:
    device = CudaDevice()
    runtime.names()

    def work() -> None:
        raise error

    with pytest.raises(type(error)):
        device.capture(work)
    assert runtime.names() == ["cudaStreamBeginCapture", "cudaStreamEndCapture"]
    runtime.fail["cudaGraphInstantiate"] = "cudaErrorMemoryAllocation"
    with pytest.raises(DeviceFailure):
        device.capture(lambda: None)
    assert runtime.names()[-1] == "cudaGraphDestroy", "the graph that could not be made executable is freed"


def test_failures_tell_the_call_and_whether_it_was_memory(runtime: FakeRuntime) -> None:
    device = CudaDevice()
    runtime.fail["cudaMalloc"] = "cudaErrorMemoryAllocation"
    with pytest.raises(DeviceFailure, match="cudaMalloc: cudaErrorMemoryAllocation") as caught:
        device.allocate(1 << 40)
    assert caught.value.memory
    runtime.fail["cudaSetDevice"] = "cudaErrorNoDevice"
    with pytest.raises(DeviceFailure) as caught:
        device.activate()
    assert not caught.value.memory


@pytest.mark.parametrize(
    ("status", "code"), [("cudaErrorNoDevice", "cuda_query_failed"), ("cudaErrorMemoryAllocation", "out_of_memory")]
)
def test_a_device_that_cannot_be_opened_has_a_code(runtime: FakeRuntime, status: str, code: str) -> None:
    runtime.fail["cudaSetDevice"] = status
    with pytest.raises(BackendError, match="cuda:1") as caught:
        open_device(1)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ModuleNotFoundError("No module named 'cuda'"), "cuda_python_not_installed"),
        (ImportError("libcudart.so.13: cannot open shared object file"), "cuda_python_import_failed"),
        (RuntimeError("built for another CUDA"), "cuda_python_import_failed"),
    ],
)
def test_without_cuda_python_the_error_says_how_to_get_it(error: Exception, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_name: str) -> ModuleType:
        raise error

    monkeypatch.setattr(device_module.importlib, "import_module", fail)
    with pytest.raises(BackendError) as caught:
        open_device()
    assert caught.value.code == code and "pip install" in caught.value.remedy


@pytest.mark.skipif(importlib.util.find_spec("cuda") is None, reason='cuda-python is not installed: pip install ".[rtx]"')
def test_cuda_python_has_every_name_that_is_used(runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module("cuda.bindings.runtime")
    device = CudaDevice()
    device.upload(device.allocate(4), np.zeros(1, np.float32))
    device.free_graph(device.capture(device.wait))
    device.close()
    assert [name for name in set(runtime.names()) if not callable(getattr(real, name, None))] == []
    for kind, members in vars(runtime).items():
        if isinstance(members, SimpleNamespace):
            assert [name for name in vars(members) if not hasattr(getattr(real, kind), name)] == []
    with pytest.raises((DeviceFailure, BackendError)):  # no GPU here: the real module answers with a status, not with a crash
        monkeypatch.undo()
        CudaDevice(99)


def test_buffers_grow_reuse_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    from fake_gpu import FakeDevice

    monkeypatch.delitem(sys.modules, "cuda", raising=False)
    device = FakeDevice(memory=100)
    buffers = DeviceBuffers(device)
    assert not buffers.fits({"a": 10})
    buffers.reserve({"a": 10, "b": 0})
    first = buffers["a"]
    assert buffers.fits({"a": 3, "b": 0})
    buffers.reserve({"a": 3})
    assert buffers["a"] == first and device.calls == ["allocate 10", "allocate 1"]
    buffers.reserve({"a": 95})
    assert buffers["a"] != first and [len(block) for block in device.blocks.values()] == [1, 95]
    with pytest.raises(DeviceFailure):
        buffers.reserve({"a": 200})
    assert not buffers.fits({"a": 1}) and len(device.blocks) == 1, "what could not grow is gone, and known to be"
    buffers.reserve({"a": 50})
    buffers.close()
    buffers.close()
    assert not device.blocks
