"""What this machine can build and run: probed here and nowhere else, each answer "yes" or a stable reason code."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import sys
from dataclasses import dataclass
from functools import cache
from types import ModuleType

from apex_runtime.backends.reasons import REMEDIES, ReasonCode

BACKENDS = ("ort-cpu", "ort-cuda", "tensorrt", "tensorrt-rtx")

# One Python API under two names (TensorRT for RTX installs its wheels under the second).
TENSORRT_MODULES = {"tensorrt": ("tensorrt",), "tensorrt-rtx": ("tensorrt_rtx_bindings", "tensorrt_rtx")}
_TENSORRT_REASONS = {
    "tensorrt": (ReasonCode.TENSORRT_PYTHON_NOT_INSTALLED, ReasonCode.TENSORRT_PYTHON_IMPORT_FAILED),
    "tensorrt-rtx": (ReasonCode.TENSORRT_RTX_PYTHON_NOT_INSTALLED, ReasonCode.TENSORRT_RTX_PYTHON_IMPORT_FAILED),
}


@dataclass(frozen=True)
class Answer:
    """Yes (``reason`` is None) or no with the reason; ``detail`` adds what was seen."""

    reason: ReasonCode | None = None
    detail: str = ""

    @property
    def available(self) -> bool:
        """True when nothing is missing."""
        return self.reason is None

    @property
    def remedy(self) -> str:
        """What to do about it; empty when available."""
        return "" if self.reason is None else REMEDIES[self.reason]


@dataclass(frozen=True)
class Capability:
    """One row of the matrix: may bundles for ``backend`` be built here, may they be run here, by which library version."""

    backend: str
    version: str
    build: Answer
    run: Answer


def probe_all() -> tuple[Capability, ...]:
    """The whole matrix, in the order of ``BACKENDS``."""
    return tuple(probe(backend) for backend in BACKENDS)


def probe(backend: str) -> Capability:
    """What can be done with one backend of ``BACKENDS``."""
    if backend == "ort-cpu":
        version, answer = _probe_onnxruntime()
        return Capability(backend, version, answer, answer)
    if backend == "ort-cuda":
        return _probe_ort_cuda()
    module, answer = import_tensorrt(backend)
    version = "" if module is None else str(module.__version__)
    return Capability(backend, version, answer, answer if not answer.available else _gpu_execution())


def import_tensorrt(flavour: str) -> tuple[ModuleType | None, Answer]:
    """The TensorRT module of a flavour (``tensorrt`` or ``tensorrt-rtx``), or None and why."""
    missing, broken = _TENSORRT_REASONS[flavour]
    for name in TENSORRT_MODULES[flavour]:
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            continue
        try:
            return importlib.import_module(name), Answer()
        except Exception as error:  # a missing shared library surfaces as OSError, ImportError, RuntimeError, ...
            return None, Answer(broken, f"import {name}: {error}")
    return None, Answer(missing, f"no module named {TENSORRT_MODULES[flavour][0]}")


@cache
def probe_cuda(index: int = 0) -> Answer:
    """Is there a CUDA driver with a device of this index? Asked of the driver library, so that no CUDA package is needed."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return Answer(ReasonCode.CUDA_UNAVAILABLE, f"{name} is not on this machine")
    status = driver.cuInit(0)
    if status == 100:  # CUDA_ERROR_NO_DEVICE
        return Answer(ReasonCode.CUDA_DEVICE_NOT_FOUND, "cuInit: no device")
    count = ctypes.c_int(0)
    if status != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return Answer(ReasonCode.CUDA_QUERY_FAILED, f"cuInit returned {status}")
    if count.value == 0:
        return Answer(ReasonCode.CUDA_DEVICE_NOT_FOUND, "the driver lists no device")
    if index >= count.value:
        return Answer(
            ReasonCode.CUDA_DEVICE_INDEX_OUT_OF_RANGE, f"there is no cuda:{index}, the driver lists {count.value} device(s)"
        )
    return Answer(detail=f"{count.value} device(s)")


def _probe_onnxruntime() -> tuple[str, Answer]:
    try:
        import onnxruntime
    except Exception as error:
        return "", Answer(ReasonCode.ONNXRUNTIME_NOT_INSTALLED, str(error))
    return str(onnxruntime.__version__), Answer()


def _probe_ort_cuda() -> Capability:
    version, answer = _probe_onnxruntime()
    if answer.available:
        import onnxruntime

        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            answer = Answer(ReasonCode.ONNXRUNTIME_CUDA_NOT_INSTALLED, "this ONNX Runtime has no CUDA provider")
        else:
            answer = _gpu_execution()
    return Capability("ort-cuda", version, answer, answer)


def _gpu_execution() -> Answer:
    """Running on a GPU: not before there is one, and not in this version of apex-rt even then."""
    cuda = probe_cuda()
    if not cuda.available:
        return cuda
    return Answer(ReasonCode.EXECUTION_NOT_IN_THIS_VERSION, "this version of apex-rt executes on the CPU only")
