"""What this machine can build and run: probed here and nowhere else, each answer "yes" or a stable reason code."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import sys
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from apex_runtime.backends.reasons import REMEDIES, ReasonCode

BACKENDS = ("ort-cpu", "ort-cuda", "tensorrt", "tensorrt-rtx")

PROVEN, UNPROVEN = "proven", "unproven"
# What stands behind each backend's "run": whether this project ever executed it on the hardware it is for.
_EVIDENCE = {
    "ort-cpu": (PROVEN, "every test run executes it"),
    "ort-cuda": (UNPROVEN, "ran on an H200 with the tiles of the CPU; the present graph was never executed on a GPU"),
    "tensorrt": (UNPROVEN, "never executed on a GPU, nor built on one; the tests check its calls against a fake driver"),
    "tensorrt-rtx": (
        UNPROVEN,
        "plans are built in the tests; never executed on a GPU, the tests check its calls against a fake driver",
    ),
}

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

    def as_json(self) -> dict[str, Any]:
        """For a report."""
        reason = None if self.reason is None else self.reason.value
        return {"available": self.available, "reason": reason, "detail": self.detail, "remedy": self.remedy}


@dataclass(frozen=True)
class Capability:
    """One row of the matrix: may bundles for ``backend`` be built here, may they be run here, by which library version."""

    backend: str
    version: str
    build: Answer
    run: Answer

    @property
    def proven(self) -> str:
        """``proven``, or ``unproven`` for what this project never executed on the hardware it is for."""
        return _EVIDENCE[self.backend][0]

    @property
    def evidence(self) -> str:
        """What the word rests on."""
        return _EVIDENCE[self.backend][1]

    def as_json(self) -> dict[str, Any]:
        """For a report."""
        return {
            "backend": self.backend,
            "version": self.version or None,
            "build": self.build.as_json(),
            "run": self.run.as_json(),
            "proof": self.proven,
        }


def probe_all() -> tuple[Capability, ...]:
    """The whole matrix, in the order of ``BACKENDS``."""
    return tuple(probe(backend) for backend in BACKENDS)


def probe(backend: str, index: int = 0) -> Capability:
    """What can be done with one backend of ``BACKENDS``, running on GPU ``index`` where it needs one."""
    if backend == "ort-cpu":
        version, answer = _probe_onnxruntime()
        return Capability(backend, version, answer, answer)
    if backend == "ort-cuda":
        return _probe_ort_cuda(index)
    module, answer = import_tensorrt(backend)
    version = "" if module is None else str(module.__version__)
    # TensorRT times kernels on the GPU it builds for; TensorRT for RTX builds anywhere.
    build = probe_cuda(index) if answer.available and backend == "tensorrt" else answer
    return Capability(backend, version, build, answer if not answer.available else _probe_execution(index))


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
    name = _driver_name()
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


@cache
def compute_capability(index: int = 0) -> int | None:
    """89 for a GPU of sm_89; None without one. Asked of the driver library, like ``probe_cuda``."""
    if not probe_cuda(index).available:
        return None
    driver = ctypes.CDLL(_driver_name())
    device, values = ctypes.c_int(0), (ctypes.c_int(0), ctypes.c_int(0))
    if driver.cuDeviceGet(ctypes.byref(device), index) != 0:
        return None
    for value, attribute in zip(values, (75, 76), strict=True):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
        if driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device) != 0:
            return None
    return 10 * values[0].value + values[1].value


def _driver_name() -> str:
    return "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


def _probe_onnxruntime() -> tuple[str, Answer]:
    try:
        import onnxruntime
    except Exception as error:
        return "", Answer(ReasonCode.ONNXRUNTIME_NOT_INSTALLED, str(error))
    return str(onnxruntime.__version__), Answer()


def _probe_ort_cuda(index: int) -> Capability:
    """A bundle for it is the model and a manifest: any ONNX Runtime can check and write that."""
    version, build = _probe_onnxruntime()
    if not build.available:
        return Capability("ort-cuda", version, build, build)
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        run = Answer(ReasonCode.ONNXRUNTIME_CUDA_NOT_INSTALLED, "this ONNX Runtime has no CUDA provider")
    else:
        run = probe_cuda(index)
    return Capability("ort-cuda", version, build, run)


def _probe_execution(index: int) -> Answer:
    """Running a plan takes a GPU and cuda-python."""
    cuda = probe_cuda(index)
    if cuda.available and importlib.util.find_spec("cuda") is None:
        return Answer(ReasonCode.CUDA_PYTHON_NOT_INSTALLED, "no module named cuda")
    return cuda
