"""The row "evidence": every file says how it was made, and the README's figures are those of the files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from apex_runtime.errors import DataError
from apex_runtime.fairness.evidence import EVIDENCE_NAME, read_evidence
from apex_runtime.release.checkout import Checkout
from apex_runtime.release.record import Record, read_record
from apex_runtime.release.row import Row, Status

EVIDENCE = "bench/evidence"
FIGURES = "bench/readme_figures.py"
_SECONDS = 120


class _Code(Record):
    commit: str | None
    dirty: bool | None
    note: str = ""


class _Evidence(Record):
    circumstances: _Code


def evidence_row(checkout: Checkout) -> Row:
    """Files that cannot be read, whose commit is not here, or that were measured with changes; then the README.

    Two forms: a file with its ``circumstances``, and the folder that ``apex-rt bench --evidence`` writes, whose hashes count.
    """
    folder = checkout.root / EVIDENCE
    files = sorted(folder.rglob("*.json"))
    why_not = _why_not(checkout, files)
    if why_not:
        return Row("evidence", "not run", why_not, EVIDENCE)
    faults = [f"{path.relative_to(folder).as_posix()}: {fault}" for path in files if (fault := _fault(checkout, path))]
    status, figures = readme_figures(checkout.root)
    if status != "pass":
        faults.append(f"README.md: {figures}")
    if not faults:
        return Row("evidence", "pass", f"{len(files)} files, and the README's figures are theirs", EVIDENCE)
    only_unknown = status == "not run" and len(faults) == 1
    reason = f"{len(files)} files, objections: {len(faults)}"
    return Row("evidence", "not run" if only_unknown else "fail", reason, EVIDENCE, tuple(faults))


def _why_not(checkout: Checkout, files: list[Path]) -> str:
    if not files:
        return "no file is there"
    if checkout.commit is None:
        return checkout.why_not_of(None)
    return "a shallow checkout does not have the commits of the past" if checkout.shallow else ""


def _fault(checkout: Checkout, path: Path) -> str:
    try:
        made = _made(path)
    except DataError as error:
        return error.message
    if made is None:
        return ""
    note = f" (its note: {made.note})" if made.note else ""
    if made.commit is None or not checkout.has(made.commit):
        return f"commit {made.commit} is not in the history{note}"
    if made.dirty is not False:
        return f"{'it calls itself dirty' if made.dirty else 'whether all was committed is not known'}{note}"
    return ""


def _made(path: Path) -> _Code | None:
    """Of which code a file is; None for a part of a bundle, whose head says it for all. Raises DataError."""
    if path.name == EVIDENCE_NAME:
        read_evidence(path.parent)
        return read_record(path, _Code)
    if (path.parent / EVIDENCE_NAME).is_file():
        return None
    return read_record(path, _Evidence).circumstances


def readme_figures(root: Path) -> tuple[Status, str]:
    """Whether the README's table is that of the files. Asked of the program that writes it, which may import more than we do."""
    paths = [str(root.resolve()), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, FIGURES, "--check"]
    try:
        run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "not run", f"{FIGURES} --check: {error}"
    if run.returncode == 0:
        return "pass", run.stdout.strip()
    if run.returncode == 1 and run.stdout.strip():  # a program that breaks leaves with 1 as well, but has no answer
        return "fail", run.stdout.strip()
    return "not run", f"{FIGURES} --check gave no answer: {(run.stderr.strip().splitlines() or ['nothing'])[-1]}"
