"""One training of a study with its cells, as a process of its own: ``python -m apex_train.ablation.arm JOB.json``.

A process per training keeps the random state and the threads of arms apart, and one that dies takes nothing else with it.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from rich.console import Console

from apex_runtime.cli.interrupt import interruptible
from apex_runtime.data.dataset import DatasetType
from apex_runtime.data.open import open_dataset
from apex_runtime.errors import ApexError
from apex_train.ablation.journal import Entry, Journal
from apex_train.ablation.measure import Measured, measure
from apex_train.ablation.study import EvaluateSection, Metric
from apex_train.config import FitConfig
from apex_train.engine.lock import sole_writer
from apex_train.engine.trainer import Trainer

STOPPED = 3  # exit code of an arm that was asked to stop; its training is saved


class Job(BaseModel):
    """What the process is told. ``cells``: how each is measured, by its key; ``output`` is the folder of the study."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    output: Path
    training: str
    config: FitConfig
    init: Path | None
    data: Path
    dataset_type: DatasetType
    split: str
    metric: Metric
    cells: dict[str, EvaluateSection]
    threads: int | None
    commit: str | None

    @property
    def folder(self) -> Path:
        """Where the training writes."""
        return self.output / "runs" / self.training


def run(job: Job) -> bool:
    """Train, or go on, and add the cells to the journal; False when it was asked to stop. Raises ApexError."""
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    with sole_writer(job.folder):
        train = open_dataset(job.data, "train", job.dataset_type)
        trainer = Trainer(job.config, train, None, job.folder, Console(stderr=True))
        last = job.folder / "last.pt"
        if last.exists():
            trainer.resume(last)
        elif job.init is not None:
            trainer.initialise(job.init)
        with interruptible("stopping after this step") as stop:
            threading.Thread(target=_until_closed, args=(stop,), daemon=True).start()
            if not trainer.finished:
                trainer.fit(stop=stop)
            if not trainer.finished:
                return False
        dataset = open_dataset(job.data, job.split, job.dataset_type)
        subject = Measured(last, job.config.train.letterbox, str(trainer.placement.device), job.data)
        values = measure(subject, dataset, job.metric, list(job.cells.values()))
        seconds = sum(line["seconds"] for line in trainer.history)
        for key, value in zip(job.cells, values, strict=True):
            Journal(job.output).add(Entry(key=key, metric=job.metric, value=value, training_seconds=seconds, commit=job.commit))
    return True


def _until_closed(stop: threading.Event) -> None:
    """Standard input ends when the study asks to stop, and also when it was killed: no training goes on without it."""
    os.read(sys.stdin.fileno(), 1)
    stop.set()


def main(path: str) -> int:
    """The exit code: 0 done, 1 an error that standard error names, ``STOPPED``."""
    try:
        return 0 if run(Job.model_validate_json(Path(path).read_bytes())) else STOPPED
    except ApexError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
