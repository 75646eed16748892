"""The log of a run in three forms, written after every epoch: ``log.jsonl``, ``log.csv``, and events for TensorBoard.

The two text files are rewritten as a whole from the history of the checkpoint, so that a resumed run has neither a gap nor a
line twice. The events are appended; what an earlier process wrote into the same folder is declared void and written anew.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apex_runtime.files import write_atomically

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LOG_JSONL, LOG_CSV, EVENTS = "log.jsonl", "log.csv", "tensorboard"


class RunLog:
    """The log in ``folder``. ``tensorboard``: event files too, under ``folder/tensorboard``, where that package is installed."""

    def __init__(self, folder: Path, tensorboard: bool = True) -> None:
        self._folder = folder
        self._tensorboard = tensorboard
        self._writer: SummaryWriter | None = None
        self._written: set[tuple[int, str]] = set()

    def write(self, history: Sequence[dict[str, Any]]) -> None:
        """Write the whole history, one dict per epoch: numbers, strings, None, or dicts of these (one level). Raises OSError.

        May be called again for the same epoch with more keys. A number that is not finite is null in ``log.jsonl``, empty in
        ``log.csv``, and itself in the events.
        """
        lines = (json.dumps({key: _plain(value) for key, value in line.items()}, allow_nan=False) for line in history)
        write_atomically(self._folder / LOG_JSONL, "".join(f"{line}\n" for line in lines).encode())
        write_atomically(self._folder / LOG_CSV, as_csv(history).encode())
        self._events(history)

    def close(self) -> None:
        """Finish the event file. A later ``write`` opens another."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None
        self._written.clear()

    def _events(self, history: Sequence[dict[str, Any]]) -> None:
        if not self._tensorboard or not history:
            return
        if self._writer is None:
            self._writer = _open_writer(self._folder / EVENTS)
        if self._writer is None:
            self._tensorboard = False
            return
        for number, line in enumerate(history, start=1):
            step = int(line.get("step") or line.get("epoch") or number)
            for tag, value in flatten(line):
                if isinstance(value, Real) and (step, tag) not in self._written and tag != "step":
                    self._writer.add_scalar(tag.replace(".", "/"), float(value), step)
                    self._written.add((step, tag))
        self._writer.flush()


def flatten(line: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The entries of an epoch with the keys of inner dicts joined by a point: ``memory.allocated``."""
    for key, value in line.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{inner}", item) for inner, item in value.items())
        else:
            yield key, value


def as_csv(history: Sequence[dict[str, Any]]) -> str:
    """A table with a row per epoch; the columns are those of all epochs, in the order in which they first appeared."""
    rows = [{key: _plain(value) for key, value in flatten(line)} for line in history]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def _plain(value: Any) -> Any:
    """The value as JSON can hold it: numbers of NumPy as numbers of Python, None for what is not finite."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if math.isfinite(value) else None


def _open_writer(folder: Path) -> SummaryWriter | None:
    """A writer whose events replace those of earlier files in the folder; None where TensorBoard is not installed."""
    try:
        import tensorboard  # noqa: F401 - what the writer of torch needs; slow to import, so it waits for the first epoch
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    # The whole history follows, thus from step 0: what was written between the last checkpoint and a crash must not stay, and
    # an epoch that was saved but whose events were lost must not be missing.
    earlier = folder.is_dir() and any(folder.iterdir())
    return SummaryWriter(str(folder), purge_step=0 if earlier else None)
