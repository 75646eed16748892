"""What a time depends on and no model says: the processor, its clock, the GPUs, the versions of the libraries.

Nothing here fails: what the system does not tell is None. No host name, user or path is read.
"""

from __future__ import annotations

import csv
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# What a runtime without GPU consists of, and what more may be there.
LIBRARIES = ("apex-x", "numpy", "opencv-python-headless", "onnx", "onnxruntime", "pycocotools")
OPTIONAL_LIBRARIES = (
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt_rtx_cu13_bindings",
    "tensorrt_rtx_cu13_libs",
    "pycuda",
    "cuda-python",
    "faster-coco-eval",
    "rasterio",
    "torch",
)
_GPU_FIELDS = ("name", "driver_version", "memory.total", "compute_cap")
_SECONDS_FOR_A_QUERY = 10


def processor() -> str:
    """The name of the CPU, where the system tells."""
    return _from_cpuinfo("model name") or platform.processor() or platform.machine()


def usable_cpus() -> int:
    """How many logical processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int | None:
    """Physical memory of the machine."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def gpus() -> list[dict[str, Any]]:
    """The NVIDIA GPUs that ``nvidia-smi`` lists: name, driver, memory_bytes, compute_capability (89 for 8.9). Mostly empty."""
    return [_gpu(row) for row in nvidia_smi(_GPU_FIELDS)]


def nvidia_smi(fields: Sequence[str]) -> list[list[str]]:
    """A row per GPU with what ``nvidia-smi`` says of ``fields``; empty without the program, or when it fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS_FOR_A_QUERY)
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [row for row in csv.reader(run.stdout.splitlines(), skipinitialspace=True) if len(row) == len(fields)]
    return rows if run.returncode == 0 else []


def _gpu(row: list[str]) -> dict[str, Any]:
    name, driver, mebibytes, capability = (word.strip() for word in row)
    digits = capability.replace(".", "")
    return {
        "name": name,
        "driver": driver,
        "memory_bytes": int(mebibytes) << 20 if mebibytes.isdecimal() else None,
        "compute_capability": int(digits) if digits.isdecimal() else None,
    }


def machine() -> dict[str, Any]:
    """What stays: processor, logical processors (all, usable), memory, system, GPUs."""
    return {
        "processor": processor(),
        "cpus": os.cpu_count(),
        "usable_cpus": usable_cpus(),
        "memory_bytes": memory_bytes(),
        "system": platform.system(),
        "gpus": gpus(),
    }


def state() -> dict[str, Any]:
    """What changes from minute to minute: ``governor`` and ``megahertz`` of the first processor, ``load`` over 1, 5, 15 min."""
    megahertz = _from_cpuinfo("cpu MHz")
    return {
        "governor": _first_line(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "megahertz": float(megahertz) if megahertz else None,
        "load": [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None,
    }


def versions() -> dict[str, str | None]:
    """Python, ``LIBRARIES`` (None when missing), and those of ``OPTIONAL_LIBRARIES`` that are installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    found |= {name: _version(name) for name in LIBRARIES}
    return found | {name: number for name in OPTIONAL_LIBRARIES if (number := _version(name))}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:  # or the same library under another distribution name
        return None


def _from_cpuinfo(field: str) -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), None)


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None
