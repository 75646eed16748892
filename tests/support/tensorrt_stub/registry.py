"""NVIDIA's own TensorRT bindings and plugin registry in a process of their own, on a machine without a GPU.

The bindings link libraries that are not there; ``stub.c`` stands in for them and hands the registry on to the lean runtime, which
is. What that buys: ``tensorrt.plugin`` validates and registers for real. What it does not: a builder, a parser, an engine.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
_LIBRARIES = ("libnvinfer.so.11", "libnvonnxparser.so.11", "libnvinfer_plugin.so.11")


def why_not() -> str:
    """What is missing on this machine, or an empty string."""
    absent = [name for name in ("tensorrt_bindings", "tensorrt_lean_libs") if importlib.util.find_spec(name) is None]
    if absent or sys.platform != "linux":
        return f'tensorrt_python_not_installed: no {", ".join(absent)}: pip install ".[trt-test]" (Linux)'
    return "" if shutil.which("gcc") else "cxx_not_found: gcc is not on the PATH"


def build_stubs(folder: Path) -> None:
    """Compile the stand-ins into a folder."""
    for name in _LIBRARIES:
        subprocess.run(["gcc", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", folder / name, HERE / "stub.c", "-ldl"], check=True)


def run(stubs: Path, program: str, *arguments: str, **environment: str) -> str:
    """The last line of what a program of this folder says, after what TensorRT has to say; it must leave with 0."""
    found = importlib.util.find_spec("tensorrt_lean_libs")
    assert found is not None and found.submodule_search_locations is not None
    libraries = [str(stubs), *found.submodule_search_locations, os.environ.get("LD_LIBRARY_PATH", "")]
    paths = [str(HERE), *(path for path in sys.path if path)]
    environment = os.environ | {"LD_LIBRARY_PATH": ":".join(libraries), "PYTHONPATH": ":".join(paths)} | environment
    done = subprocess.run(
        [sys.executable, HERE / program, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]
