"""``apex-rt parity --bisect``: which node makes the candidate differ?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from apex_runtime.cli.progress import counter
from apex_runtime.errors import UsageError
from apex_runtime.parity.bisect.report import lines
from apex_runtime.parity.bisect.run import bisect
from apex_runtime.parity.check import Settings


def run_bisect(reference: Path, against: Sequence[str], settings: Settings, folder: Path, as_json: bool) -> int:
    """Search, and print what was found. The exit code: 0 when nothing differs, else 1. Raises what ``bisect`` raises."""
    if len(against) != 1:
        raise UsageError(f"--bisect with {len(against)} candidates: expected one.", "Name one with --against.")
    found = bisect(reference, Path(against[0]), settings, folder, lambda total: counter(total, "parity"))
    if as_json:
        click.echo(found.model_dump_json(indent=2, by_alias=True))
    else:
        for line in lines(found, folder):
            click.echo(line)
    return 0 if found.verdict == "same" else 1
