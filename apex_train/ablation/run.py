"""Run what a study lacks, several trainings at a time, each in a process of its own."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from apex_runtime.data.dataset import DatasetType
from apex_runtime.errors import DataError
from apex_runtime.files import write_atomically
from apex_train.ablation.journal import Entry, Journal
from apex_train.ablation.plan import Training
from apex_train.ablation.study import Study

_LOOK_EVERY = 0.2  # seconds between looks at a process that was not asked to stop


@dataclass(frozen=True)
class Setting:
    """``output``: folder of the study; ``threads`` of each of ``jobs`` processes, None: as many as torch takes.

    ``gpus``: what CUDA calls those that are lent in turn, one to a training at a time; empty: every training sees all.
    """

    output: Path
    dataset_type: DatasetType
    jobs: int
    threads: int | None
    commit: str | None
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """A training that ended with an error; ``log`` is what it printed."""

    training: Training
    log: Path
    last_line: str


def missing(trainings: Sequence[Training], journal: Journal) -> list[Training]:
    """The trainings of which a cell is not in the journal, with those cells only. Raises DataError."""
    left = [(each, tuple(cell for cell in each.cells if journal.find(cell.key) is None)) for each in trainings]
    return [Training(each.key, each.config, cells) for each, cells in left if cells]


def entries_of(trainings: Sequence[Training], journal: Journal) -> dict[tuple[tuple[str, ...], int], Entry]:
    """The entry of every cell, by its levels and seed. Raises DataError when one is missing."""
    found = {(cell.levels, cell.seed): journal.find(cell.key) for training in trainings for cell in training.cells}
    entries = {place: entry for place, entry in found.items() if entry is not None}
    if len(entries) < len(found):
        raise DataError(f"{len(found) - len(entries)} cells have no score.", "Run the study again: it trains what is missing.")
    return entries


def run_all(
    study: Study, trainings: Sequence[Training], setting: Setting, stop: threading.Event, done: Callable[[int, int], None]
) -> list[Failure]:
    """Run them; those that fail are returned and do not keep the others from running.

    ``done`` is told how many are finished, and how many failed. When ``stop`` is set the running ones save their state and end,
    and no other begins. Raises OSError.
    """
    failures: list[Failure] = []
    finished = 0
    free: queue.SimpleQueue[str] = queue.SimpleQueue()
    for number in range(setting.jobs if setting.gpus else 0):
        free.put(setting.gpus[number % len(setting.gpus)])
    with ThreadPoolExecutor(setting.jobs) as pool:
        for future in as_completed([pool.submit(_run_one, study, each, setting, stop, free) for each in trainings]):
            failure = future.result()
            finished += failure is None and not stop.is_set()
            failures += [] if failure is None else [failure]
            done(finished, len(failures))
    return failures


def _run_one(
    study: Study, training: Training, setting: Setting, stop: threading.Event, free: queue.SimpleQueue[str]
) -> Failure | None:
    from apex_train.ablation.arm import STOPPED

    if stop.is_set():
        return None
    job = _write_job(study, training, setting)
    log = job.with_suffix(".log")
    with _lent(free if setting.gpus else None) as environment, log.open("ab") as stream:
        # A group of its own: Ctrl-C at the terminal reaches the study, which tells its arms.
        process = subprocess.Popen(
            [sys.executable, "-m", "apex_train.ablation.arm", str(job)],
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            env=environment,
        )
        code = _wait(process, stop)
    if code == 0 or (code == STOPPED and stop.is_set()):
        return None
    return Failure(training, log, _last_line(log))


@contextlib.contextmanager
def _lent(free: queue.SimpleQueue[str] | None) -> Iterator[dict[str, str] | None]:
    """The environment of a process that sees one of the free GPUs, which is given back afterwards; None: that of this one."""
    if free is None:
        yield None
        return
    gpu = free.get()
    try:
        yield os.environ | {"CUDA_VISIBLE_DEVICES": gpu}
    finally:
        free.put(gpu)


def _wait(process: subprocess.Popen[bytes], stop: threading.Event) -> int:
    """The exit code; when ``stop`` is set the process is told, by the end of its input."""
    assert process.stdin is not None
    with process.stdin:
        while process.poll() is None and not stop.wait(_LOOK_EVERY):
            pass
    return process.wait()


def _write_job(study: Study, training: Training, setting: Setting) -> Path:
    from apex_train.ablation.arm import Job

    job = Job(
        output=setting.output,
        training=training.key,
        config=training.config,
        init=study.init,
        data=study.data,
        dataset_type=setting.dataset_type,
        split=study.split,
        metric=study.metric,
        cells={cell.key: cell.evaluation for cell in training.cells},
        threads=setting.threads,
        commit=setting.commit,
    )
    path = setting.output / "jobs" / f"{training.key}.json"
    write_atomically(path, job.model_dump_json(indent=2).encode())
    return path


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
