"""Equal minutes of a processor: what a training program spends, and how many epochs fit into what it may spend.

Counted is the processor time of the program and of all that it started: user and system time of the children that were waited
for. Its start and its own measuring at the end are in it. A machine that does other things besides makes a second worth less
(cores share caches and clocks), so the estimate is only as good as the machine is quiet; a run that missed is made again.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from apex_runtime.errors import UsageError

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
TOLERANCE = 0.1  # of the limit
_LONG = 20.0  # seconds of a first epoch after which a second one tells what an epoch costs
_FEW, _MORE = 2, 6


@dataclass(frozen=True)
class Cost:
    """Seconds of a processor for a run without epochs, and for each epoch."""

    start: float
    epoch: float

    def epochs(self, limit: float) -> int:
        """How many end nearest to ``limit`` seconds. Raises UsageError when not even one does."""
        wanted = round((limit - self.start) / self.epoch)
        if wanted < 1:
            least = (self.start + self.epoch) / 60
            raise UsageError(f"--cpu-minutes {limit / 60:g}: an epoch takes {least:.1f}.", f"Give at least {least:.1f}.")
        return wanted


def cpu_seconds() -> float:
    """Of one processor, spent by the programs that this one has started and waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def ran(command: Sequence[str | Path], log: Path, threads: int, **variables: str) -> float:
    """Run a program to its end, its words in ``log``, and return the seconds of a processor that it took.

    Raises UsageError with the last words of a program that fails.
    """
    environment = os.environ | dict.fromkeys(THREADS, str(threads)) | variables
    before = cpu_seconds()
    with log.open("wb") as stream:
        code = subprocess.run(
            [str(word) for word in command], stdout=stream, stderr=subprocess.STDOUT, env=environment
        ).returncode
    if code:
        said = log.read_text(errors="replace").strip()[-1500:]
        raise UsageError(f"{Path(command[0]).name} ended with {code}:\n{said}", f"All it said is in {log}.", path=log)
    return cpu_seconds() - before


def trained_within(limit: float, train: Callable[[int, Path], float], folder: Path) -> tuple[int, float]:
    """``train(epochs, folder)``, which returns seconds, with as many epochs as take nearest to ``limit``: epochs and seconds.

    A run that is off by more than ``TOLERANCE`` is made again with what it has taught about the cost of an epoch, at most twice.
    """
    cost = measured_cost(train)
    for tries_left in (2, 1, 0):
        epochs = cost.epochs(limit)
        shutil.rmtree(folder, ignore_errors=True)
        seconds = train(epochs, folder)
        if abs(seconds - limit) <= TOLERANCE * limit or not tries_left:
            break
        click.echo(f"{folder}: {epochs} epochs took {seconds / 60:.2f} minutes, not {limit / 60:g}: once more")
        again = Cost(cost.start, (seconds - cost.start) / epochs)
        if again.epochs(limit) == epochs:  # not nearer with whole epochs
            break
        cost = again
    return epochs, seconds


def measured_cost(train: Callable[[int, Path], float]) -> Cost:
    """Of ``train(epochs, folder)``, which returns seconds, from two short runs that are thrown away.

    The second one has more epochs the shorter they are: what a start costs varies by a second or so.
    """
    with tempfile.TemporaryDirectory(prefix="apex-baseline-") as folder:
        one = train(1, Path(folder) / "one")
        more = _FEW if one > _LONG else _MORE
        epoch = max((train(more, Path(folder) / "more") - one) / (more - 1), 1e-3)
    return Cost(max(one - epoch, 0.0), epoch)
