"""One command for a whole model: a bundle in every precision for every backend that runs here, each held against the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from apex_runtime.backends.capabilities import probe_all
from apex_runtime.backends.onnx_contract import read_onnx
from apex_runtime.backends.timing_cache import Note
from apex_runtime.bundle.build import build_bundle
from apex_runtime.bundle.load import CHECKPOINT_SUFFIXES
from apex_runtime.bundle.manifest import Backend
from apex_runtime.errors import ApexError, BackendError, UsageError
from apex_runtime.parity.check import ParityResult, Progress, Settings, Watch, check_parity
from apex_runtime.precision.plan import Precision
from apex_runtime.precision.request import PrecisionRequest

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8", "fp8")


@dataclass(frozen=True)
class Absent:
    """What could not be compared here, and why, as a stable code: a backend, or one precision of it."""

    backend: str
    precision: Precision | None
    reason: str
    detail: str


@dataclass(frozen=True)
class Sweep:
    """Every comparison that was made, and what was not."""

    result: ParityResult
    absent: tuple[Absent, ...]


def sweep(model: Path, folder: Path, settings: Settings, note: Note, progress: Progress, watch: Watch) -> Sweep:
    """Build bundles of ``model`` into ``folder``, named for precision and backend, and compare each with it.

    Ranges come from the images of the comparison, or from the split train of its labelled set. Raises UsageError for a
    checkpoint, BackendError when nothing can be built, and what reading the model and ``check_parity`` raise; a bundle that
    cannot be built here is absent, with the code of its error.
    """
    if model.suffix.lower() in CHECKPOINT_SUFFIXES or model.is_dir():
        raise UsageError(f"{model}: --sweep builds bundles from an exported model.", "Give the model.onnx of apex-train export.")
    read_onnx(model)  # an error of the model itself is none of a backend's
    data = settings.images if settings.labels is None else settings.labels.path
    absent = list(_absent_backends())
    missing = {item.backend for item in absent}
    candidates = []
    for backend in get_args(Backend):
        for precision in PRECISIONS if backend not in missing else ():
            bundle = folder / f"{precision}-{backend}"
            try:
                note(f"building {bundle}")
                request = PrecisionRequest(precision, data=None if precision == "fp32" else data, report=False)
                build_bundle(model, backend, bundle, precision=request, note=note)
            except ApexError as error:
                absent.append(Absent(backend, precision, error.code or type(error).__name__, str(error)))
            else:
                candidates.append(bundle)
    if not candidates:
        why = "; ".join(f"{item.backend}: {item.detail}" for item in absent)
        raise BackendError(f"--sweep {folder}: no bundle can be built here ({why})", "apex-rt doctor says what is missing.")
    return Sweep(check_parity(model, candidates, settings, progress, watch), tuple(absent))


def _absent_backends() -> Iterator[Absent]:
    for row in probe_all():
        if row.run.reason is not None:
            yield Absent(row.backend, None, row.run.reason.value, row.run.detail)
