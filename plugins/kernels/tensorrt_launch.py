"""A launch whose sizes are only known when the engine runs, said in TensorRT's symbolic sizes.

TensorRT's ahead-of-time plugins launch one kernel with a pointer per input, then 32-bit integers, then a pointer per output. A
float goes among the integers as its 32 bits, which is what a kernel's parameter of that size takes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import tensorrt.plugin as trtp

from apex_plugins.catalogue import folder_of
from apex_plugins.kernels.build import ptx
from apex_plugins.kernels.launch import THREADS
from apex_plugins.spec import DOMAIN, OpSpec

# The driver compiles it for the GPU it finds, also for one that is younger than the toolkit; the plan is of one GPU in any case.
ARCHITECTURE = "75"

LETTERS = {"FLOAT": "f32", "HALF": "f16", "BF16": "bf16"}  # data types of TensorRT, as the kernels' names have them
TYPES = "FP32|FP16|BF16"  # the same for AutoTuneCombination; positions that say this have one type
BLOCK = (THREADS, 1, 1)

Planned = tuple[str, bytes, trtp.KernelLaunchParams, trtp.SymIntExprs]


def plugin_of(spec: OpSpec) -> tuple[str, bytes]:
    """By what name TensorRT knows an op, and the PTX of its kernels, compiled unless that was done. Raises KernelError."""
    folder = folder_of(spec.name)
    assert folder is not None, spec.name
    return f"{DOMAIN}::{spec.name}", ptx(folder, ARCHITECTURE)


def fixed(*sizes: Any) -> tuple[int, ...]:
    """Sizes that the network fixes, as numbers. Raises RuntimeError for one that is known at run time only."""
    return tuple(size.constant_value() for size in sizes)


def planned(
    code: bytes,
    kernel: str,
    grid: Sequence[Any],
    block: Sequence[int],
    sizes: Sequence[Any],
    floats: Sequence[float] = (),
    shared_bytes: int = 0,
) -> Planned:
    """What an ``aot_impl`` returns: name, PTX, launch parameters, and the arguments between inputs and outputs.

    ``grid`` and ``sizes`` are numbers or symbolic sizes. A grid that may be empty becomes one block, because CUDA refuses a
    launch of none: the kernel has to find out that there is nothing to do.
    """
    blocks = [side if isinstance(side, int) else trtp.max(side, 1) for side in grid]
    launch = trtp.KernelLaunchParams(*blocks, *block, shared_mem=shared_bytes)
    values = [*sizes, *(struct.unpack("<i", struct.pack("<f", value))[0] for value in floats)]
    return kernel, code, launch, trtp.SymIntExprs.from_tuple(tuple(trtp.SymInt32(value) for value in values))
