"""What ptxas reports of every kernel: registers, and whether anything had to live in local memory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from apex_plugins.kernels.reasons import KernelError, KernelReason

_ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(sm_\w+)'")
_LOCAL = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True)
class Resources:
    """One kernel on one architecture. Sizes in bytes; ``stack`` is a local array or a spill, ``spills`` stores plus loads."""

    kernel: str
    architecture: str
    registers: int
    shared: int
    stack: int
    spills: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def parse_ptxas(log: str) -> tuple[Resources, ...]:
    """The kernels of the output of ``ptxas -v``, in its order. Raises ValueError when it says only half of one."""
    return tuple(_parse(log))


def _parse(log: str) -> Iterator[Resources]:
    starts = list(_ENTRY.finditer(log))
    ends = [start.start() for start in starts[1:]] + [len(log)]
    for start, end in zip(starts, ends, strict=True):
        text = log[start.end() : end]
        local, used, shared = _LOCAL.search(text), _USED.search(text), _SHARED.search(text)
        if local is None or used is None:
            raise ValueError(f"ptxas reports no resources of {start[1]} for {start[2]}")
        stack, stores, loads = map(int, local.groups())
        yield Resources(start[1], start[2], int(used[1]), int(shared[1]) if shared else 0, stack, stores + loads)


def refuse_local_memory(kernels: Iterable[Resources]) -> None:
    """Raise KernelError ``kernel_spills`` when a kernel needs memory of its own outside registers and shared memory."""
    bad = [item for item in kernels if item.stack or item.spills]
    if bad:
        words = (f"{item.kernel} for {item.architecture}: {item.stack} bytes of stack, {item.spills} of spills" for item in bad)
        raise KernelError(KernelReason.KERNEL_SPILLS, "; ".join(words))
