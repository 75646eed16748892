"""Compiled kernels on the GPU of the calling thread, by the driver API of cuda-python, which is imported when it is first needed.

Tests hold it to the calls it makes through a driver of their own; on a GPU they launch every kernel by it.
"""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from apex_plugins.kernels.launch import Launch
from apex_plugins.kernels.reasons import KernelError, KernelReason


class KernelModule:
    """The kernels of one fatbin, loaded into the current CUDA context (torch makes one of its device the current one)."""

    def __init__(self, fatbin: Path) -> None:
        """Raises KernelError: cuda-python is missing, or the driver refuses the file."""
        self._driver = import_driver()
        self._module = self._call(KernelReason.KERNEL_LOAD_FAILED, "cuModuleLoadData", fatbin.read_bytes())
        self._functions: dict[str, Any] = {}

    def launch(self, launch: Launch, stream: int) -> None:
        """Queue a kernel on a stream (its handle; 0 is the default stream). Raises KernelError."""
        if launch.empty:
            return
        # The value of a null pointer is None in ctypes, which cuda-python does not take.
        values = tuple(0 if item.value is None else item.value for item in launch.arguments)
        parameters = values, tuple(type(item) for item in launch.arguments)
        function = self._function(launch.kernel, launch.shared_bytes)
        sides = (*launch.grid, *launch.block)
        self._call(
            KernelReason.KERNEL_LAUNCH_FAILED, "cuLaunchKernel", function, *sides, launch.shared_bytes, stream, parameters, 0
        )

    def _function(self, name: str, shared_bytes: int) -> Any:
        if name not in self._functions:
            self._functions[name] = self._call(
                KernelReason.KERNEL_LOAD_FAILED, "cuModuleGetFunction", self._module, name.encode()
            )
        if shared_bytes > 48 * 1024:  # beyond that a kernel has to be told
            most = self._driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            self._call(KernelReason.KERNEL_LAUNCH_FAILED, "cuFuncSetAttribute", self._functions[name], most, shared_bytes)
        return self._functions[name]

    def _call(self, reason: KernelReason, name: str, *arguments: Any) -> Any:
        status, *values = getattr(self._driver, name)(*arguments)
        if status != self._driver.CUresult.CUDA_SUCCESS:
            raise KernelError(reason, f"{name}: {status.name}")
        return values[0] if values else None


@cache
def import_driver() -> ModuleType:
    """``cuda.bindings.driver``. Raises KernelError ``cuda_python_not_installed`` or ``cuda_python_import_failed``."""
    try:
        return importlib.import_module("cuda.bindings.driver")
    except ModuleNotFoundError as error:
        raise KernelError(KernelReason.CUDA_PYTHON_NOT_INSTALLED, "cuda-python is not installed") from error
    except Exception as error:  # a broken installation raises whatever its libraries raise
        raise KernelError(KernelReason.CUDA_PYTHON_IMPORT_FAILED, f"cuda-python cannot be imported ({error})") from error
