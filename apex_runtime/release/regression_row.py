"""The row "regression": what ``apex-rt bench check`` answered about the shipped engine."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from apex_runtime.bundle.hashing import sha256_of
from apex_runtime.release.checkout import ENGINE, Checkout
from apex_runtime.release.record import Record, read_record
from apex_runtime.release.row import Row


class _Engine(Record):
    model_sha256: str


class _Answer(Record):
    format_version: int
    verdict: Literal["pass", "fail"]
    engine: _Engine
    commit: str | None = None


def regression_row(checkout: Checkout, path: Path) -> Row:
    """What the answer in ``path`` says. Raises DataError and OSError of that file."""
    answer, file = read_record(path, _Answer), checkout.name_of(path)
    digest = sha256_of(checkout.root / ENGINE)
    why_not = checkout.why_not_of(answer.commit)
    if answer.engine.model_sha256 != digest:
        why_not = f"of an engine {answer.engine.model_sha256[:12]}, the shipped one is {digest[:12]}"
    if why_not:
        return Row("regression", "not run", why_not, file)
    reason = "no metric is worse than its baseline allows" if answer.verdict == "pass" else "bench check found a regression"
    return Row("regression", answer.verdict, reason, file)
