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


class _Code(Record):
    commit: str | None
    dirty: bool | None


class _Answer(Record):
    """Of ``apex_runtime/schemas/check.schema.json``, version 1."""

    format_version: Literal[1]
    verdict: Literal["pass", "fail"]
    reasons: list[str]
    engine: _Engine
    code: _Code


def regression_row(checkout: Checkout, path: Path) -> Row:
    """What the answer in ``path`` says. Raises DataError and OSError of that file."""
    answer, file = read_record(path, _Answer), checkout.name_of(path)
    why_not = _why_not(checkout, answer)
    if why_not:
        return Row("regression", "not run", why_not, file)
    if answer.verdict == "fail":
        return Row("regression", "fail", "bench check found a regression", file, tuple(answer.reasons))
    return Row("regression", "pass", "no metric is worse than its baseline allows", file)


def _why_not(checkout: Checkout, answer: _Answer) -> str:
    digest = sha256_of(checkout.root / ENGINE)
    if answer.engine.model_sha256 != digest:
        return f"of an engine {answer.engine.model_sha256[:12]}, the shipped one is {digest[:12]}"
    why_not = checkout.why_not_of(answer.code.commit)
    return why_not or ("" if answer.code.dirty is False else "it was not measured with everything committed")
