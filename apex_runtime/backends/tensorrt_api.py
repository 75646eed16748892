"""What building and running share of TensorRT's Python API, which TensorRT for RTX has under another name."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from apex_runtime.backends.capabilities import import_tensorrt
from apex_runtime.backends.reasons import backend_error

Log = Callable[[str], None]


def load_flavour(flavour: str) -> ModuleType:
    """The TensorRT module. Raises BackendError that says how to install it."""
    module, answer = import_tensorrt(flavour)
    if module is None:
        assert answer.reason is not None
        raise backend_error(answer.reason, f"{flavour} is not available: {answer.detail}.")
    return module


def reasons_of(logger: Any) -> str:
    """What the library said last about a failure."""
    return "; ".join(logger.errors[:3]) or "it gave no reason"


def make_logger(trt: ModuleType, log: Log | None) -> Any:
    """A logger that keeps errors for our own messages; the class can only be derived once the module is imported."""
    severity = trt.ILogger.Severity
    serious = (severity.ERROR, severity.INTERNAL_ERROR)

    class Collecting(trt.ILogger):  # type: ignore[name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, level: Any, message: str) -> None:
            if level in serious:
                self.errors.append(message.strip())
            if log is not None and level != severity.VERBOSE:
                log(f"{level.name.lower()}: {message}")

    return Collecting()
