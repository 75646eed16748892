"""Kernels compiled with nvcc: one fatbin per op for every GPU, or PTX for one, kept by the content of what they are made of.

    python -m apex_plugins.kernels.build

compiles all of them and prints what they need. The library calls below do the same for one op, when it is first used.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from apex_plugins.kernels.cache import SOURCES, kernel_path, workplace
from apex_plugins.kernels.nvcc import find_toolkit, run_compiler
from apex_plugins.kernels.resources import Resources, parse_ptxas, refuse_local_memory

ARCHITECTURES = ("75", "80", "86", "89", "90a", "100", "120")
PTX_ARCHITECTURE = "80"  # what no machine code above is for, the driver compiles from this
_SOURCES = ("*.cu", "*.h")
_FLAGS = ("-std=c++17", "-O3", "--threads=0", "-Xptxas", "-v")  # threads: one architecture on each core, their logs unmixed


@dataclass(frozen=True)
class Built:
    """The fatbin of an op, the resources of its kernels, and how long nvcc took, also when that was in an earlier run."""

    op: str
    path: Path
    kernels: tuple[Resources, ...]
    seconds: float
    cached: bool


def ops() -> tuple[str, ...]:
    """The folders of the ops that have a kernel."""
    return tuple(sorted(path.parent.name for path in SOURCES.glob("*/kernel.cu")))


def fatbin(op: str) -> Path:
    """The compiled kernels of an op for every architecture. Raises KernelError."""
    return build(op).path


def build(op: str) -> Built:
    """Compile an op, unless that was done before. Raises KernelError: no nvcc, it fails, a kernel spills, no folder to write."""
    flags = (*_FLAGS, *(f"-gencode=arch=compute_{name},code=sm_{name}" for name in ARCHITECTURES))
    flags += (f"-gencode=arch=compute_{PTX_ARCHITECTURE},code=compute_{PTX_ARCHITECTURE}",)
    toolkit = find_toolkit()
    path = kernel_path(op, ".fatbin", _SOURCES, (toolkit.version, *flags))
    report = path.with_suffix(".json")
    if path.exists() and report.exists():
        facts = json.loads(report.read_text(encoding="utf-8"))
        return Built(op, path, tuple(Resources(**item) for item in facts["kernels"]), facts["seconds"], cached=True)
    with workplace(path) as folder:
        start = time.perf_counter()
        kernels = parse_ptxas(_compile(toolkit.nvcc, op, folder / "kernels", ("-fatbin", *flags)))
        seconds = time.perf_counter() - start
        refuse_local_memory(kernels)
        facts = {"kernels": [item.as_dict() for item in kernels], "seconds": seconds}
        (folder / "report").write_text(json.dumps(facts), encoding="utf-8")
        os.replace(folder / "report", report)
        os.replace(folder / "kernels", path)
    return Built(op, path, kernels, seconds, cached=False)


def ptx(op: str, architecture: str) -> bytes:
    """The PTX of an op for ``architecture`` such as "89" or "90a". Raises KernelError."""
    toolkit, flags = find_toolkit(), (*_FLAGS, f"-arch=compute_{architecture}", "-ptx")
    path = kernel_path(op, ".ptx", _SOURCES, (toolkit.version, *flags))
    if not path.exists():
        with workplace(path) as folder:
            _compile(toolkit.nvcc, op, folder / "ptx", flags)
            os.replace(folder / "ptx", path)
    return path.read_bytes()


def _compile(nvcc: Path, op: str, target: Path, flags: Iterable[str]) -> str:
    return run_compiler([nvcc, *flags, "-I", SOURCES, "-o", target, SOURCES / op / "kernel.cu"])
