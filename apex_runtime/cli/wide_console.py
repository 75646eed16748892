"""Where tables with many columns are printed: a terminal has the width it has, a log file or a pipe has room."""

from __future__ import annotations

import sys

from rich.console import Console

WIDE = 150  # columns


def wide_console() -> Console:
    """On standard output."""
    return Console(width=None if sys.stdout.isatty() else WIDE)
