"""Kernels compiled with nvcc: one fatbin per op for every GPU, or PTX for one, kept by the content of what they are made of.

    python -m apex_plugins.kernels.build

compiles all of them, side by side, and prints what they need. The library calls below do the same for one op, when it is first
used.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from apex_plugins.kernels.cache import SOURCES, kernel_path, workplace
from apex_plugins.kernels.nvcc import find_toolkit, run_compiler
from apex_plugins.kernels.reasons import KernelError
from apex_plugins.kernels.resources import Resources, parse_ptxas, refuse_local_memory

COMMAND = "python -m apex_plugins.kernels.build"
ARCHITECTURES = ("75", "80", "86", "89", "90a", "100", "120")
PTX_ARCHITECTURE = "80"  # what no machine code above is for, the driver compiles from this
_SOURCES = ("*.cu", "*.h")
_FLAGS = ("-std=c++17", "-O3", "--threads=0", "-Xptxas", "-v")  # threads: one architecture on each core, their logs unmixed
_LOG = logging.getLogger(__name__)


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
    """The compiled kernels of an op for every architecture; a warning says so where that takes a while. Raises KernelError."""
    return build(op, _warn).path


def _warn(op: str) -> None:
    _LOG.warning("compiling the CUDA kernels of %s: half a minute, once. To do it for all ops beforehand: %s", op, COMMAND)


def build_all(told: Callable[[str], None]) -> list[Built]:
    """Compile every op, all at once: one that is at its last architecture leaves cores idle, which another can use.

    ``told`` hears what begins and what is done, from any thread. Raises KernelError, when all have ended.
    """

    def one(op: str) -> Built:
        built = build(op, lambda op: told(f"{op}: compiling for {len(ARCHITECTURES)} architectures"))
        if not built.cached:
            told(f"{op}: compiled in {built.seconds:.1f} s")
        return built

    with ThreadPoolExecutor(max(1, len(ops()))) as pool:
        return list(pool.map(one, ops()))


def build(op: str, announce: Callable[[str], None] = lambda op: None) -> Built:
    """Compile an op, unless that was done before. Raises KernelError: no nvcc, it fails, a kernel spills, no folder to write.

    ``announce`` is called with the op before the compiler is.
    """
    flags = (*_FLAGS, *(f"-gencode=arch=compute_{name},code=sm_{name}" for name in ARCHITECTURES))
    flags += (f"-gencode=arch=compute_{PTX_ARCHITECTURE},code=compute_{PTX_ARCHITECTURE}",)
    toolkit = find_toolkit()
    path = kernel_path(op, ".fatbin", _SOURCES, (toolkit.version, *flags))
    report = path.with_suffix(".json")
    if path.exists() and report.exists():
        facts = json.loads(report.read_text(encoding="utf-8"))
        return Built(op, path, tuple(Resources(**item) for item in facts["kernels"]), facts["seconds"], cached=True)
    with workplace(path) as folder:
        announce(op)
        start = time.perf_counter()
        log = _compile(toolkit.nvcc, op, folder / "kernels", ("-fatbin", *flags))
        seconds = time.perf_counter() - start
        kernels = tuple(sorted(parse_ptxas(log), key=lambda item: (item.kernel, _number(item.architecture))))
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


def _number(architecture: str) -> int:
    return int(architecture.removeprefix("sm_").rstrip("af"))


def _compile(nvcc: Path, op: str, target: Path, flags: Iterable[str]) -> str:
    return run_compiler([nvcc, *flags, "-I", SOURCES, "-o", target, SOURCES / op / "kernel.cu"])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: 0, or 1 with the reason code when the kernels cannot be compiled here."""
    words = argparse.ArgumentParser(
        prog=COMMAND,
        description="Compile the CUDA kernels of every op for every GPU, unless that was done, and say what they need.",
        epilog=f"Example: {COMMAND} --json",
    )
    words.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    as_json = words.parse_args(arguments).json
    try:
        start = time.perf_counter()
        found = build_all(lambda line: print(line, file=sys.stderr, flush=True))
    except KernelError as error:
        refusal = {"reason": error.reason.value, "message": error.message, "remedy": error.remedy}
        print(json.dumps(refusal, indent=2) if as_json else error, file=sys.stdout if as_json else sys.stderr)
        return 1
    seconds = time.perf_counter() - start
    print(json.dumps(_facts(found, seconds), indent=2) if as_json else "\n".join(_lines(found, seconds)))
    return 0


def _facts(found: Sequence[Built], seconds: float) -> dict[str, object]:
    rows = [
        {"op": item.op, "fatbin": str(item.path), "compile_seconds": item.seconds, "cached": item.cached}
        | {"kernels": [kernel.as_dict() for kernel in item.kernels]}
        for item in found
    ]
    return {"seconds": seconds, "ops": rows}


def _lines(found: Sequence[Built], seconds: float) -> Iterator[str]:
    yield f"{'kernel':<40}{'registers, per architecture':<44}{'shared':>8}{'spills':>8}"
    for item in found:
        for name in dict.fromkeys(kernel.kernel for kernel in item.kernels):
            of = [kernel for kernel in item.kernels if kernel.kernel == name]
            used = " ".join(f"{kernel.architecture.removeprefix('sm_')}:{kernel.registers}" for kernel in of)
            yield f"{name:<40}{used:<44}{max(kernel.shared for kernel in of):>8}{sum(kernel.spills for kernel in of):>8}"
        when = "earlier" if item.cached else "now"
        yield f"{item.op}: {item.path.stat().st_size / 2**20:.1f} MiB, compiled {when} in {item.seconds:.1f} s\n"
    yield f"{len(found)} ops in {seconds:.2f} s"


if __name__ == "__main__":
    sys.exit(main())
