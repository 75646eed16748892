"""Where a fault was caught, read off the reasons of a report."""

from __future__ import annotations

import re
from collections.abc import Sequence

from apex_runtime.model_info import OUTPUT_NAMES

PASSPORT = ("input", "tiles", "classes", "mask", "preprocessing", "max_detections", "decode")


def levels_of(reasons: Sequence[str]) -> list[str]:
    """tensor, decision and task; ``passport``: other models before anything runs; ``refused``: not opened, or it does not run."""
    return sorted({_level(reason) for reason in reasons})


def _level(reason: str) -> str:
    word = re.sub(r"^budget [^:]*: ", "", reason).split(":")[0]
    if word in ("decision", "task"):
        return word
    return "tensor" if word in OUTPUT_NAMES else "passport" if word in PASSPORT else "refused"
