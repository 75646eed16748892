"""A launch whose sizes are only known when the engine runs, said in TensorRT's symbolic sizes.

TensorRT's ahead-of-time plugins launch one kernel with a pointer per input, then 32-bit integers, then a pointer per output. A
float goes among the integers as its 32 bits, which is what a kernel's parameter of that size takes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import tensorrt.plugin as trtp

from apex_plugins.kernels.build import ptx

# The driver compiles it for the GPU it finds, also for one that is younger than the toolkit; the plan is of one GPU in any case.
ARCHITECTURE = "75"

LETTERS = {"FLOAT": "f32", "HALF": "f16", "BF16": "bf16"}  # data types of TensorRT, as the kernels' names have them
TYPES = "FP32|FP16|BF16"  # the same for AutoTuneCombination: all of them, dependent on each other

Planned = tuple[str, bytes, trtp.KernelLaunchParams, trtp.SymIntExprs]


def extents(tensor: Any) -> tuple[Any, ...]:
    """The shape of a TensorDesc: an int for a size that the network fixes, TensorRT's symbolic size for one that it does not.

    A symbolic size must stand on the left of + - * //; TensorRT's sizes do not know the operators from the right.
    """
    return tuple(size.constant_value() if size.is_constant else size for size in tensor.shape_expr)


def kernels(op: str) -> bytes:
    """The PTX of an op's kernels, compiled when that was not done before. Raises KernelError."""
    return ptx(op, ARCHITECTURE)


def planned(
    code: bytes,
    kernel: str,
    grid: Sequence[Any],
    block: Sequence[int],
    shared: int,
    sizes: Sequence[Any],
    floats: Sequence[float] = (),
) -> Planned:
    """What an ``aot_impl`` returns: name, PTX, launch parameters, and the arguments between inputs and outputs."""
    launch = trtp.KernelLaunchParams(*grid, *block, shared_mem=shared)
    values = [*sizes, *(struct.unpack("<i", struct.pack("<f", value))[0] for value in floats)]
    return kernel, code, launch, trtp.SymIntExprs.from_tuple(tuple(trtp.SymInt32(value) for value in values))
