"""The evidence bundle: a folder that holds all that somebody else needs in order to believe a figure, or to doubt it.

| file | what is in it |
|---|---|
| ``evidence.json`` | the command, the commit of the code, whether it was changed, hashes of the engines and of these files |
| ``contract.json`` | the fairness contract of every row |
| ``report.json`` | the figures, as the command printed them |
| ``samples.json`` | the raw numbers that the figures were made of |
| ``capabilities.json`` | what each backend can do on this machine, and why not |
| ``environment.json`` | the machine, versions, the variables of the environment that change a time |
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apex_runtime
from apex_runtime.code_state import code_state
from apex_runtime.errors import DataError, UsageError
from apex_runtime.fairness.contract import Contract
from apex_runtime.machine import machine, versions

EVIDENCE_NAME, REPORT_NAME, CONTRACT_NAME, SAMPLES_NAME = "evidence.json", "report.json", "contract.json", "samples.json"
FORMAT_VERSION = 1
_ALWAYS = {REPORT_NAME, CONTRACT_NAME, SAMPLES_NAME}
MAX_BYTES = 64 << 20  # of one file that is read back
_ROOMS = ("apex_runtime", "plugins", "engines", "pyproject.toml")
# Whatever else is in the environment is nobody's business.
_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE")


def check_folder(folder: Path) -> None:
    """Raises UsageError unless a bundle can be written there: asked before anything is measured."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"{folder}: exists and is not an empty folder.", "Name a new one: evidence is never overwritten.", path=folder
        )


def write_evidence_bundle(
    folder: Path, command: str, contracts: dict[str, Contract], report: dict[str, Any], samples: Any, hashes: dict[str, str]
) -> None:
    """Write the bundle in one step. ``contracts`` by their hash; ``hashes``: SHA-256 of engines and configurations by name."""
    folder = folder.resolve()
    check_folder(folder)
    parts = {
        CONTRACT_NAME: {digest: contract.model_dump(mode="json") for digest, contract in contracts.items()},
        REPORT_NAME: report,
        SAMPLES_NAME: samples,
        "capabilities.json": _capabilities(),
        "environment.json": {"machine": machine(), "versions": versions(), "variables": _variables()},
    }
    texts = {name: (json.dumps(part, indent=2, allow_nan=False) + "\n").encode() for name, part in parts.items()}
    head = {
        "format_version": FORMAT_VERSION,
        "kind": "apex-x-evidence",
        "command": command,
        **code_state(Path(apex_runtime.__file__).parent, _ROOMS),
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "contracts": sorted(contracts),
        "hashes": hashes,
        "files": {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()},
    }
    texts[EVIDENCE_NAME] = (json.dumps(head, indent=2) + "\n").encode()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".evidence-") as place:
        made = Path(place) / "bundle"
        made.mkdir()
        for name, text in texts.items():
            (made / name).write_bytes(text)
        os.replace(made, folder)  # also over an empty folder, and never over another


def read_evidence(folder: Path) -> dict[str, Any]:
    """``evidence.json`` of a bundle whose files are what they were. Raises UsageError, DataError."""
    path = folder / EVIDENCE_NAME
    if not path.is_file():
        raise UsageError(f"{folder}: no evidence bundle, it has no {EVIDENCE_NAME}.", "Make one with --evidence.", path=folder)
    head = read_json(path)
    files = head.get("files") if head.get("kind") == "apex-x-evidence" else None
    if head.get("format_version") != FORMAT_VERSION or not isinstance(files, dict) or not files.keys() >= _ALWAYS:
        raise DataError(f"{path}: not evidence of format {FORMAT_VERSION}.", "Measure again with --evidence.", path=path)
    for name, digest in files.items():
        part = folder / name
        if Path(name).name != name or not part.is_file() or hashlib.sha256(_bytes(part)).hexdigest() != digest:
            raise DataError(f"{part}: missing, or changed since it was measured.", "Measure again with --evidence.", path=part)
    return head


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises DataError for what is damaged, too large or no object, OSError."""
    try:
        found = json.loads(_bytes(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({str(error)[:100]}).", "Make it again.", path=path) from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: not a JSON object.", "Name a report that a command wrote with --json or --output.", path=path)
    return found


def _bytes(path: Path) -> bytes:
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path}: larger than a report can be ({MAX_BYTES >> 20} MB).", "Name a report.", path=path)
    return path.read_bytes()


def _capabilities() -> list[dict[str, Any]]:
    from apex_runtime.backends.capabilities import probe_all

    return [item.as_json() for item in probe_all()]


def _variables() -> dict[str, str]:
    return {name: os.environ[name] for name in _VARIABLES if name in os.environ}
