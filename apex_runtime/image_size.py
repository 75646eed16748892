"""How the size of an input is written."""

from __future__ import annotations

import re

from apex_runtime.errors import UsageError

MAX_SIDE = 16384


def parse_size(text: str) -> tuple[int, int]:
    """'1024' -> (1024, 1024), '384x1280' -> (384, 1280): height x width. Raises UsageError."""
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text.strip().lower())
    height, width = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise UsageError(f"--size {text}: not a size.", "Give one side (1024) or height x width (384x1280), in pixels.")
    return height, width
