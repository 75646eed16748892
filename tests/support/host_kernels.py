"""Kernels run on this processor through their host faces, with the arguments that the GPU would get."""

from __future__ import annotations

import ctypes

import numpy as np
import torch

from apex_plugins.kernels.host import host_library
from apex_plugins.kernels.launch import Launch

TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def run_on_host(op: str, *launches: Launch) -> None:
    """Each block of each launch, one after the other."""
    for launch in launches:
        assert launch.grid[1:] == (1, 1)
        function = getattr(host_library(op), launch.kernel)
        function.restype = None
        function(*launch.arguments, ctypes.c_int32(launch.grid[0]))


def tensors_of(arrays: dict[str, np.ndarray], kind: str) -> dict[str, torch.Tensor]:
    """Rounded to a type of the kernels."""
    return {name: torch.from_numpy(value).to(TYPES[kind]).contiguous() for name, value in arrays.items()}


def exact(tensors: dict[str, torch.Tensor]) -> list[np.ndarray]:
    """What the tensors hold, in float64."""
    return [tensor.double().numpy() for tensor in tensors.values()]


def poisoned(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """An output in which what is not written is seen: NaN, or for integers their least."""
    return torch.full(shape, float("nan") if dtype.is_floating_point else torch.iinfo(dtype).min, dtype=dtype)
