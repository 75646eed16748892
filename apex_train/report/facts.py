"""What stands beside every figure: the code, the libraries, the device. No path, host or user of the machine."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from pathlib import Path
from typing import Any

import torch

import apex_train
from apex_runtime.code_state import code_state
from apex_runtime.machine import processor

LIBRARIES = ("apex-x", "torch", "numpy", "opencv-python-headless", "pycocotools", "faster-coco-eval")
ROOMS = ("apex_train", "apex_runtime", "plugins", "pyproject.toml")
_PATH = re.compile(r"(?<![\w.~/])~?/(?:[^/\s:,;'\"()]+/)+([^/\s:,;'\"()]*)")


def code() -> dict[str, Any]:
    """``commit`` and ``dirty`` (whether the code differs from it); both None unless this package is a file of a git checkout."""
    return code_state(Path(apex_train.__file__).parent, ROOMS)


def versions() -> dict[str, str]:
    """Python and the libraries that enter a figure."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # opencv under another name, or a copy of the code that is not installed
            continue
    return found


def device_facts(device: torch.device) -> dict[str, Any]:
    """Kind and model of the device that measured, and the threads of the CPU."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {"kind": device.type, "name": name, "threads": torch.get_num_threads(), "system": platform.system()}


def without_paths(text: str) -> str:
    """The text with only the last part of every absolute path: a report is read on other machines."""
    return _PATH.sub(lambda match: match[1] or "...", text)
