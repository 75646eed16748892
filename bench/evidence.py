"""What stands beside every figure: the command, the commit, the machine, the versions."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from apex_runtime.code_state import command_line, git
from apex_runtime.machine import processor

ROOT = Path(__file__).resolve().parents[1]
MADE_HERE = (
    "bench/evidence",
    "engines",
    "docs",
    "README.md",
)  # what the programs of this folder write is not a change of the code
LIBRARIES = ("numpy", "onnxruntime", "onnx", "torch", "opencv-python-headless", "pycocotools")


def circumstances() -> dict[str, Any]:
    """Command line, commit, whether the code differs from that commit, processor, versions, time.

    In a copy without git the commit is that of APEX_COMMIT, else None; whether the code differs from it is then not known (None).
    """
    changes = git(ROOT, "status", "--porcelain", "--untracked-files=no", "--", ".", *(f":!{path}" for path in MADE_HERE))
    return {
        "command": command_line("python", sys.argv),
        "commit": os.environ.get("APEX_COMMIT") or git(ROOT, "rev-parse", "HEAD"),
        "dirty": None if changes is None else bool(changes),
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"processor": processor(), "cpus": os.cpu_count(), "system": platform.system(), "load": os.getloadavg()},
        "versions": {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def write_evidence(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` with its circumstances as readable JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"circumstances": circumstances()} | content, indent=2) + "\n", encoding="utf-8")
