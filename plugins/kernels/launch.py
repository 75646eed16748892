"""One launch of one kernel, decided in plain Python: the torch binding and the TensorRT plugins both ask for it.

The arguments of every kernel are, in this order: a pointer per input of the op (also those that it does not read), then 32-bit
integers (``sizes``), then 32-bit floats, then a pointer per output. TensorRT's ahead-of-time plugins pass them so.
Where a grid has a side of 0 there is nothing to do, and nothing is launched.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Grid = tuple[int, int, int]
INT_MAX = 2**31 - 1
THREADS, STEPS = 256, 4  # those of runs.h
RUN_BYTES = 16  # that a thread moves at once
SIZES_OF_TYPES = {"f32": 4, "f16": 2, "bf16": 2, "e4m3": 1, "u8": 1}  # bytes, by the letters that name types in kernels


@dataclass(frozen=True)
class Launch:
    """``kernel`` is the name of the entry point; ``arguments`` are ctypes scalars in the order of its parameters."""

    kernel: str
    grid: Grid
    block: Grid
    shared_bytes: int
    arguments: tuple[Any, ...]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to compute."""
        return 0 in self.grid


def arguments(
    inputs: Sequence[int], sizes: Sequence[int], outputs: Sequence[int], floats: Sequence[float] = ()
) -> tuple[Any, ...]:
    """The ctypes arguments of a kernel: addresses, sizes, floats, addresses. Raises ValueError for a size beyond 32 bits."""
    for size in sizes:
        if not 0 <= size <= INT_MAX:
            raise ValueError(f"a kernel takes sizes of 0..{INT_MAX}, got {size}")
    return (
        *(ctypes.c_void_p(address) for address in inputs),
        *(ctypes.c_int32(size) for size in sizes),
        *(ctypes.c_float(value) for value in floats),
        *(ctypes.c_void_p(address) for address in outputs),
    )


def ceil_div(a: Any, b: Any) -> Any:
    """a / b rounded up, for integers and for the symbolic sizes of TensorRT alike."""
    return (a + b - 1) // b


def blocks_of_runs(runs: Any) -> Any:
    """How many blocks move so many runs of one part of the work: ``blocks_for`` of runs.h."""
    return ceil_div(runs, THREADS * STEPS)


def are_multiples(addresses: Sequence[int], size: int) -> bool:
    """Whether all addresses are multiples of ``size``: whether elements may be moved so many bytes at a time."""
    return all(address % size == 0 for address in addresses)
