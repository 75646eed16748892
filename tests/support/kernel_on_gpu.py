"""Launches on a GPU for tests, on copies of NumPy arrays: each array in memory of its own and of its size, so that
compute-sanitizer sees one byte too many. Memory is cuda-python's, which loads in a second and is all that is needed here.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from apex_plugins.kernels.build import fatbin
from apex_plugins.kernels.cuda import KernelModule, import_driver
from apex_plugins.kernels.launch import Launch

ON_GPU = os.environ.get("APEX_TEST_KERNELS") == "gpu"
ALIGNMENT = 64  # what ``poisoned`` of kernel_faces.py aligns to, and by how much it may be off


def run_on_gpu(op: str, launch: Launch, arrays: Sequence[np.ndarray]) -> None:
    """The launch with every address of one of ``arrays`` replaced by that of a copy; the arrays hold what it left there."""
    _context()
    with ExitStack() as stack:
        copies = {array.ctypes.data: _copy(array, stack) for array in arrays if array.nbytes}
        moved = tuple(
            ctypes.c_void_p(copies.get(item.value, item.value)) if isinstance(item, ctypes.c_void_p) else item
            for item in launch.arguments
        )
        _module(op).launch(replace(launch, arguments=moved), stream=0)
        _call("cuCtxSynchronize")
        for array in arrays:
            if array.nbytes:
                _call("cuMemcpyDtoH", array.ctypes.data, copies[array.ctypes.data], array.nbytes)


def _copy(array: np.ndarray, stack: ExitStack) -> int:
    """The address of a copy on the device, as much off what is aligned as the array is."""
    off = array.ctypes.data % ALIGNMENT
    memory = _call("cuMemAlloc", array.nbytes + off)
    stack.callback(_call, "cuMemFree", memory)
    address = int(memory) + off
    _call("cuMemcpyHtoD", address, array.ctypes.data, array.nbytes)
    return address


@cache
def _context() -> None:
    """The first GPU's own context, current in this thread."""
    _call("cuInit", 0)
    _call("cuCtxSetCurrent", _call("cuDevicePrimaryCtxRetain", _call("cuDeviceGet", 0)))


@cache
def _module(op: str) -> KernelModule:
    return KernelModule(fatbin(op))


def _call(name: str, *arguments: Any) -> Any:
    driver = import_driver()
    status, *values = getattr(driver, name)(*arguments)
    if status != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"{name}: {status.name}")
    return values[0] if values else None
