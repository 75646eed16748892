"""A plan of TensorRT or of TensorRT for RTX: loaded, held against the model's contract, and the contexts it runs in.

Never executed on a GPU: unproven.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from apex_runtime.backends.onnx_contract import TensorSpec, expected_inputs, expected_outputs
from apex_runtime.backends.reasons import ReasonCode, backend_error
from apex_runtime.backends.runtime_cache import RuntimeCache
from apex_runtime.backends.tensorrt_api import load_flavour, make_logger, reasons_of
from apex_runtime.errors import BackendError
from apex_runtime.model_info import ModelInfo

_DTYPES = {"FLOAT": "float32", "INT64": "int64", "UINT8": "uint8"}  # those of the contract


class TensorRTEngine:
    """A deserialised plan. Its logger keeps what the library complains about, for our messages."""

    def __init__(self, path: Path, flavour: str, info: ModelInfo, compute_capability: int) -> None:
        """Raises BackendError: no such library, a plan it refuses, or one that is not of this model."""
        self._trt = load_flavour(flavour)
        self._logger = make_logger(self._trt, None)
        self._runtime = self._trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            words = reasons_of(self._logger)
            code = ReasonCode.OUT_OF_MEMORY if for_want_of_memory(words) else ReasonCode.PLAN_LOAD_FAILED
            raise backend_error(code, f"{path}: {flavour} {self._trt.__version__} refuses the plan: {words}.")
        problem = _difference(self._trt, self._engine, info)
        if problem:
            raise plan_does_not_fit(path, problem)
        self._cache: RuntimeCache | None = None
        self._config = None
        if flavour == "tensorrt-rtx":
            self._config = self._runtime_config(path, f"{flavour}-{self._trt.__version__}-sm{compute_capability}")

    @property
    def scratch_bytes(self) -> int:
        """Device memory that a context needs while it runs."""
        return int(self._engine.device_memory_size_v2)

    @property
    def max_batch(self) -> int:
        """The most images that the plan takes at once."""
        return int(self._engine.get_tensor_profile_shape("images", 0)[2][0])

    def context(self, scratch: int) -> Any:
        """An execution context that works in the device memory at ``scratch``; None when the library refuses."""
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(strategy if self._config is None else self._config)
        if context is not None:
            context.set_device_memory(scratch, self.scratch_bytes)
        return context

    def complaint(self) -> str:
        """What the library said since it was last asked."""
        words = reasons_of(self._logger)
        self._logger.errors.clear()
        return words

    def close(self) -> None:
        """Keep the compiled kernels for the next time."""
        if self._cache is not None:
            self._cache.keep()

    def _runtime_config(self, path: Path, purpose: str) -> Any:
        """TensorRT for RTX compiles kernels at the first run of a shape; they are kept from one process to the next."""
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(self._trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        # The default, lazy, runs general kernels until special ones are ready; a graph would capture the general ones for good.
        config.dynamic_shapes_kernel_specialization_strategy = self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
        self._cache = RuntimeCache(config, path, purpose)
        return config


def plan_does_not_fit(path: Path, problem: str) -> BackendError:
    """The plan is not one of this model."""
    return backend_error(ReasonCode.PLAN_DOES_NOT_FIT, f"{path}: the plan is not of the model beside it: {problem}.")


def for_want_of_memory(words: str) -> bool:
    """Whether the library complains about memory; it has no status of its own for that."""
    return any(word in words.lower() for word in ("out of memory", "outofmemory", "failed_allocation", "failed to allocate"))


def _difference(trt: ModuleType, engine: Any, info: ModelInfo) -> str:
    """What is wrong with the plan's inputs and outputs, or an empty string."""
    inputs, outputs = expected_inputs(info), expected_outputs(info)
    names = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
    wanted = {spec.name for spec in (*inputs, *outputs)}
    if names != wanted:
        return f"it has the tensors {', '.join(sorted(names))}; expected {', '.join(sorted(wanted))}"
    for specs, mode in ((inputs, trt.TensorIOMode.INPUT), (outputs, trt.TensorIOMode.OUTPUT)):
        for spec in specs:
            if engine.get_tensor_mode(spec.name) != mode:
                return f"{spec.name} is not an {mode.name.lower()}"
            problem = _tensor_difference(engine, spec)
            if problem:
                return f"{spec.name} {problem}"
    for spec in inputs:
        if spec.dtype == "int64" and engine.get_tensor_location(spec.name) != trt.TensorLocation.HOST:
            return f"{spec.name} decides no shape, so that a budget would do nothing"
    return ""


def _tensor_difference(engine: Any, spec: TensorSpec) -> str:
    dtype = engine.get_tensor_dtype(spec.name).name
    if _DTYPES.get(dtype) != spec.dtype:
        return f"has type {dtype}, expected {spec.dtype}"
    shape = tuple(engine.get_tensor_shape(spec.name))
    pairs = zip(shape, spec.shape, strict=False)
    if len(shape) != len(spec.shape) or any(-1 != found != wanted for found, wanted in pairs if wanted is not None):
        return f"has shape {shape}, expected {spec.shape}"
    return ""
