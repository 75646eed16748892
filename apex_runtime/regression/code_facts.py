"""Which state of this project's code is running."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import apex_runtime
from apex_runtime.code_state import code_state

_ROOMS = (".",)


def code_facts() -> dict[str, Any]:
    """``version``, ``commit`` and ``dirty`` (whether tracked files differ from it); what is not known is None."""
    try:
        number = version("apex-x")
    except PackageNotFoundError:
        number = None
    return {"version": number, **code_state(Path(apex_runtime.__file__).parent, _ROOMS)}
