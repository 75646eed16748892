"""The CUDA toolkit of this machine, if it has one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from apex_plugins.kernels.reasons import KernelError, KernelReason

HOME_VARIABLES = ("CUDA_HOME", "CUDA_PATH")
USUAL_FOLDER = Path("/usr/local/cuda")


@dataclass(frozen=True)
class Toolkit:
    """nvcc and what it calls itself."""

    nvcc: Path
    version: str


def find_toolkit() -> Toolkit:
    """The toolkit that ``CUDA_HOME`` or ``CUDA_PATH`` names, else the one on the PATH, else the one in its usual folder.

    Raises KernelError ``nvcc_not_found``.
    """
    homes = [os.environ[name] for name in HOME_VARIABLES if os.environ.get(name)]
    for home in homes:
        if (nvcc := shutil.which("nvcc", path=Path(home) / "bin")) is not None:
            return _toolkit(nvcc)
    if homes:
        raise KernelError(KernelReason.NVCC_NOT_FOUND, f"CUDA_HOME or CUDA_PATH is {', '.join(homes)}, without bin/nvcc")
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path=USUAL_FOLDER / "bin")
    if nvcc is None:
        raise KernelError(KernelReason.NVCC_NOT_FOUND, f"nvcc is neither on the PATH nor in {USUAL_FOLDER / 'bin'}")
    return _toolkit(nvcc)


@cache
def _toolkit(nvcc: str) -> Toolkit:
    return Toolkit(Path(nvcc), run_compiler([nvcc, "--version"]).strip().splitlines()[-1])


def run_compiler(command: Sequence[str | Path]) -> str:
    """What it said, on both streams. Raises KernelError ``kernel_compile_failed`` with its words."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode:
        words = (done.stderr or done.stdout).strip()
        raise KernelError(KernelReason.KERNEL_COMPILE_FAILED, f"{Path(command[0]).name} failed: {words[:4000]}")
    return done.stdout + done.stderr
