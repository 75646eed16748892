"""The folder that a run writes into: may it begin or go on there, and does nobody else write."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from apex_runtime.errors import UsageError

Resume = Literal["no", "yes", "auto"]
ORPHANS = 15.0  # seconds: loaders of a killed process look for it every 5, and hold its folder until then


def check_output(output: Path, resume: Resume) -> None:
    """Raise UsageError when a new run would be written over another, or there is none to go on with."""
    last = output / "last.pt"
    if resume == "yes" and not last.is_file():
        raise UsageError(f"--resume: {last} does not exist.", "Leave --resume out to start the run.", path=last)
    if resume == "no" and last.exists():
        remedy = "Go on with --resume, or choose another --output."
        if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")):
            remedy += " With --auto-resume a run that torchrun starts again goes on."
        raise UsageError(f"{output}: already holds a run.", remedy, path=output)


def hold_folder(output: Path, resume: Resume, held: ExitStack) -> bool:
    """Keep other runs out of the folder until ``held`` ends; True when it holds a run to go on with. Raises UsageError."""
    from apex_train.engine.lock import sole_writer

    held.enter_context(sole_writer(output, ORPHANS if "TORCHELASTIC_RUN_ID" in os.environ else 0.0))
    check_output(output, resume)  # again: another run may have come to its end since
    return resume != "no" and (output / "last.pt").is_file()
