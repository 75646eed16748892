"""What stands beside every figure: the command, the commit, the machine, the versions."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from apex_train.report.facts import processor

ROOT = Path(__file__).resolve().parents[1]
MADE_HERE = (
    "bench/evidence",
    "engines",
    "docs",
    "README.md",
)  # what the programs of this folder write is not a change of the code
LIBRARIES = ("numpy", "onnxruntime", "onnx", "torch", "opencv-python-headless", "pycocotools")


def circumstances() -> dict[str, Any]:
    """Command line, commit, whether the code differs from that commit, processor, versions, time."""
    return {
        "command": " ".join(["python", *map(_without_machine, sys.argv)]),
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no", "--", ".", *(f":!{path}" for path in MADE_HERE))),
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"processor": processor(), "cpus": os.cpu_count(), "system": platform.system(), "load": os.getloadavg()},
        "versions": {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def write_evidence(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` with its circumstances as readable JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"circumstances": circumstances()} | content, indent=2) + "\n", encoding="utf-8")


def _without_machine(word: str) -> str:
    """An argument as another machine may read it: of an absolute path only the last part."""
    return Path(word).name if Path(word).is_absolute() else word


def _git(*words: str) -> str:
    """What git says; on a machine with a copy of the files, APEX_COMMIT says which commit they are of."""
    if "APEX_COMMIT" in os.environ and words[0] == "rev-parse":
        return os.environ["APEX_COMMIT"]
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout.strip()
