"""The row "evidence": every file says how it was made, and the README's figures are those of the files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from apex_runtime.errors import DataError
from apex_runtime.release.checkout import Checkout
from apex_runtime.release.record import Record, read_record
from apex_runtime.release.row import Row, Status

EVIDENCE = "bench/evidence"
FIGURES = "bench/readme_figures.py"
_SECONDS = 120


class _Circumstances(Record):
    commit: str | None
    dirty: bool | None
    note: str = ""


class _Evidence(Record):
    circumstances: _Circumstances


def evidence_row(checkout: Checkout) -> Row:
    """Files that cannot be read, whose commit is not here, or that were measured with changes; then the README."""
    files = sorted((checkout.root / EVIDENCE).rglob("*.json"))
    if not files:
        return Row("evidence", "not run", "no file is there", EVIDENCE)
    if checkout.commit is None or checkout.shallow:
        why_not = "a shallow checkout does not have the commits of the past" if checkout.shallow else checkout.why_not_of(None)
        return Row("evidence", "not run", why_not, EVIDENCE)
    faults = [
        f"{path.relative_to(checkout.root / EVIDENCE).as_posix()}: {fault}" for path in files if (fault := _fault(checkout, path))
    ]
    status, figures = readme_figures(checkout.root)
    if status != "pass":
        faults.append(f"README.md: {figures}")
    only_unknown = status == "not run" and len(faults) == 1
    reason = (
        f"{len(files)} files, objections: {len(faults)}" if faults else f"{len(files)} files, and the README's figures are theirs"
    )
    return Row("evidence", "not run" if only_unknown else "fail" if faults else "pass", reason, EVIDENCE, tuple(faults))


def _fault(checkout: Checkout, path: Path) -> str:
    try:
        made = read_record(path, _Evidence).circumstances
    except DataError as error:
        return error.message
    note = f" (its note: {made.note})" if made.note else ""
    if made.commit is None or not checkout.has(made.commit):
        return f"commit {made.commit} is not in the history{note}"
    if made.dirty is not False:
        return f"{'it calls itself dirty' if made.dirty else 'whether all was committed is not known'}{note}"
    return ""


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
