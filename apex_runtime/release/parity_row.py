"""The row "parity": the sweep of the shipped engine over precisions, budgets and batches."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from apex_runtime.bundle.hashing import sha256_of
from apex_runtime.parity.report import SCHEMA_VERSION
from apex_runtime.release.checkout import ENGINE, Checkout
from apex_runtime.release.record import Record, read_record
from apex_runtime.release.row import Row

PARITY = "bench/evidence/parity-sweep.json"


class _Candidate(Record):
    path: str


class _Comparison(Record):
    candidate: _Candidate
    verdict: str


class _Reference(Record):
    sha256: str


class _Parity(Record):
    schema_version: int
    verdict: str
    reference: _Reference
    comparisons: Annotated[list[_Comparison], Field(min_length=1)]


class _Circumstances(Record):
    commit: str | None
    dirty: bool | None


class _Sweep(Record):
    circumstances: _Circumstances
    parity: _Parity


def parity_row(checkout: Checkout) -> Row:
    """What the evidence of the sweep says. Raises DataError and OSError of its file."""
    sweep = read_record(checkout.root / PARITY, _Sweep)
    parity, digest = sweep.parity, sha256_of(checkout.root / ENGINE)
    if parity.schema_version != SCHEMA_VERSION:
        return Row("parity", "not run", f"a report of version {parity.schema_version}, today's is {SCHEMA_VERSION}", PARITY)
    if parity.reference.sha256 != digest:
        why_not = f"of an engine {parity.reference.sha256[:12]}, the shipped one is {digest[:12]}"
        return Row("parity", "not run", why_not, PARITY)
    failed = [item.candidate.path for item in parity.comparisons if item.verdict != "pass"]
    count = len(parity.comparisons)
    if failed or parity.verdict != "pass":
        return Row(
            "parity", "fail", f"{len(failed)} of {count} comparisons fail, verdict {parity.verdict}", PARITY, tuple(failed)
        )
    if sweep.circumstances.dirty is not False:
        return Row("parity", "fail", "it was not made of one commit alone", PARITY)
    since = checkout.commits_since(sweep.circumstances.commit or "")
    age = "of a commit that is not here" if since is None else f"commits since: {since}"
    return Row("parity", "pass", f"{count} comparisons of the shipped engine pass; {age}", PARITY)
