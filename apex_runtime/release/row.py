"""One row of the checklist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["pass", "fail", "not run"]


@dataclass(frozen=True)
class Row:
    """What one file, or one folder of files, says.

    ``reason``: a sentence, also of what passed. ``file``: what was read, as a path in the checkout where it lies there.
    ``details``: what the sentence counts, one by one. "not run": nothing that may be relied on was found, be it absent, of
    another commit, or not to its end.
    """

    name: str
    status: Status
    reason: str
    file: str
    details: tuple[str, ...] = ()
