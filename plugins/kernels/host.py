"""The host face of an op: the mathematics of its kernel compiled for this processor, so that it can be tested without a GPU."""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
from functools import cache

from apex_plugins.kernels.cache import SOURCES, kernel_path, workplace
from apex_plugins.kernels.nvcc import run_compiler
from apex_plugins.kernels.reasons import KernelError, KernelReason

COMPILER_VARIABLE = "CXX"
_COMPILERS = ("g++", "clang++", "c++")
_FLAGS = ("-std=c++17", "-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-ffp-contract=off")


@cache
def host_library(op: str) -> ctypes.CDLL:
    """``host_face.cpp`` of an op as a loaded library. Raises KernelError: no compiler, it fails, no folder to write."""
    compiler = find_compiler()
    path = kernel_path(op, ".so", ("*.cpp", "*.cu", "*.h"), (_version(*compiler), *_FLAGS))
    if not path.exists():
        with workplace(path) as folder:
            run_compiler([*compiler, *_FLAGS, "-I", SOURCES, "-o", folder / "library", SOURCES / op / "host_face.cpp"])
            os.replace(folder / "library", path)
    return ctypes.CDLL(str(path))


def find_compiler() -> tuple[str, ...]:
    """The words of ``CXX``, else the first C++ compiler on the PATH. Raises KernelError ``cxx_not_found``."""
    given = shlex.split(os.environ.get(COMPILER_VARIABLE, ""))
    for words in [given] if given else [[name] for name in _COMPILERS]:
        if shutil.which(words[0]) is not None:
            return tuple(words)
    wanted = f"{COMPILER_VARIABLE} names {given[0]}, which is" if given else f"{', '.join(_COMPILERS)} are"
    raise KernelError(KernelReason.CXX_NOT_FOUND, f"{wanted} not on the PATH")


@cache
def _version(*compiler: str) -> str:
    return run_compiler([*compiler, "--version"])
