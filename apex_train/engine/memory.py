"""The memory governor: a step that does not fit is done again in smaller pieces, and only then given up.

The rungs, each tried once: half the micro-batch, again and again down to one image, then recomputing activations in the
backward pass (Chen et al. 2016). The effective batch stays what it is: fewer images at a time are more micro-batches per step.
"""

from __future__ import annotations

import gc
import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from apex_runtime.backends.reasons import ReasonCode
from apex_runtime.errors import ApexError
from apex_runtime.evaluation.memory import peak_resident_bytes

T = TypeVar("T")
OnOom = Literal["redo", "skip"]
# Texts of allocators that raise a plain RuntimeError: torch's on a CPU, cuBLAS, cuDNN.
_TEXTS = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


class OutOfMemoryError(ApexError):
    """Not even the last rung fits."""


@dataclass(frozen=True)
class Plan:
    """How a step is done: images at a time in each process, and whether activations are recomputed."""

    micro_batch: int
    recompute: bool = False

    def smaller(self) -> Plan | None:
        """The next rung, or None when there is none."""
        if self.micro_batch > 1:
            return replace(self, micro_batch=self.micro_batch // 2)
        return None if self.recompute else replace(self, recompute=True)

    def __str__(self) -> str:
        return f"micro-batch {self.micro_batch}{' with recomputation' if self.recompute else ''}"


def is_out_of_memory(error: BaseException) -> bool:
    """True for the ways in which torch, its libraries and Python say that memory has run out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)


class MemoryGovernor:
    """Runs steps under a plan that only ever gets smaller.

    ``agree`` tells whether any process of the run raises a flag: all of them must do a step in the same way. ``say`` is told of
    every recovery.
    """

    def __init__(
        self,
        plan: Plan,
        on_oom: OnOom = "redo",
        agree: Callable[[Sequence[bool]], list[bool]] = list,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.plan, self.on_oom = plan, on_oom
        self.recoveries = 0
        self._agree, self._say = agree, say
        self._tried: list[str] = []

    def run(self, attempt: Callable[[Plan], T], undo: Callable[[], None]) -> T | None:
        """``attempt`` under the plan. When memory runs out, in any process: ``undo``, a smaller plan, again.

        None when ``on_oom`` is skip and the step was given up. Other errors pass through. Raises OutOfMemoryError, naming every
        plan that was tried.
        """
        while True:
            result, failure = _try(attempt, self.plan)
            (failed,) = self._agree([failure is not None])
            if not failed:
                self._tried.clear()
                return result
            result = None
            undo()
            release()
            self._step_down(failure or "another process ran out of memory")
            if self.on_oom == "skip":
                return None

    def _step_down(self, cause: str) -> None:
        self._tried.append(str(self.plan))
        smaller = self.plan.smaller()
        if smaller is None:
            raise OutOfMemoryError(
                f"out of memory [{ReasonCode.OUT_OF_MEMORY.value}]; tried {', '.join(self._tried)}: {cause}",
                "Train with a smaller train.crop or model.size, or on a device with more memory.",
                code=ReasonCode.OUT_OF_MEMORY.value,
            )
        self._say(f"out of memory with {self.plan}: going on with {smaller} [{ReasonCode.OUT_OF_MEMORY.value}]")
        self.plan = smaller
        self.recoveries += 1

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"micro_batch": self.plan.micro_batch, "recompute": self.plan.recompute, "recoveries": self.recoveries}

    def restore(self, state: dict[str, Any]) -> None:
        """What an earlier part of the run learned: never a larger plan than now."""
        self.recoveries = int(state["recoveries"])
        self.plan = Plan(min(self.plan.micro_batch, int(state["micro_batch"])), self.plan.recompute or bool(state["recompute"]))


def _try(attempt: Callable[[Plan], T], plan: Plan) -> tuple[T | None, str | None]:
    """The result, or the text of what ran out. The exception ends here: its traceback would keep the step's tensors alive."""
    try:
        return attempt(plan), None
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return None, str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def release() -> None:
    """Give back what a failed step left behind."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def telemetry(device: torch.device) -> dict[str, int | None]:
    """Bytes: allocated now, reserved by the allocator, peak. On a CPU the resident set of the process; nothing is reserved."""
    if device.type == "cuda":
        return {
            "allocated": torch.cuda.memory_allocated(device),
            "reserved": torch.cuda.memory_reserved(device),
            "peak": torch.cuda.max_memory_allocated(device),
        }
    return {"allocated": _resident(), "reserved": None, "peak": peak_resident_bytes()}


def _resident() -> int | None:
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * mmap.PAGESIZE if pages.is_file() else None
