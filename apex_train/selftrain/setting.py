"""What rounds of self-training are made of, and what of it must still be so when they are resumed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.errors import UsageError
from apex_runtime.fairness.evidence import read_json
from apex_runtime.pipeline.results import write_json
from apex_train.config import FitConfig
from apex_train.pseudo.run import Choice
from apex_train.selftrain.pool import Pool

Student = Literal["teacher", "fresh"]
PLAN = "plan.json"


@dataclass(frozen=True)
class Setting:
    """``rounds`` after the first one (round 0), which is supervised, or a checkpoint that was given.

    ``choice``: how labels are chosen; with ``precision`` (0..1) its limits are chosen in every round, on val. ``labelled_share``
    (0..1) of the looks of a round are at labelled images; ``pseudo_weight`` (0..1) scales the weight of every pseudo label;
    ``student``: a round begins from its teacher's weights, or from random ones; ``round_epochs``: of the joined images,
    None for as many steps as ``train.epochs`` of the labelled images are.
    """

    config: FitConfig
    rounds: int
    choice: Choice
    precision: float | None
    labelled_share: float
    pseudo_weight: float
    student: Student
    round_epochs: int | None
    threads: int | None

    def of_round(self, number: int, epochs: int, weights: Path) -> FitConfig:
        """The configuration of a round above 0, with this file of sample weights. Every round draws samples of its own."""
        train = self.config.train
        own = {"epochs": epochs, "seed": train.seed + number, "sample_weights": str(weights)}
        return self.config.model_copy(update={"train": train.model_copy(update=own)})

    def epochs_for(self, labelled: int, images: int) -> int:
        """Epochs of a round above 0: what was asked for, or as many steps as the supervised round has, at least one epoch."""
        if self.round_epochs is not None:
            return self.round_epochs
        wanted = self.config.train.epochs * steps_per_epoch(labelled, self.config.train.batch)
        return max(1, round(wanted / steps_per_epoch(images, self.config.train.batch)))


def steps_per_epoch(images: int, batch: int) -> int:
    """Optimiser steps of an epoch: whole batches only, and one where there is less than one."""
    return images // min(images, batch)


def plan(setting: Setting, labelled: InstanceDataset, pool: Pool) -> dict[str, Any]:
    """What must be the same when the rounds are resumed: everything that changes what is learned, but for how many there are."""
    choice = setting.choice
    return {
        "config": setting.config.learned(),
        "labelled": labelled.fingerprint(),
        "unlabelled": pool.digest,
        "limits": asdict(choice.limits) if setting.precision is None else {"precision": setting.precision},
        "views": [view.name for view in choice.views],
        "unsure": "crowd" if choice.keep_unsure else "background",
        "labelled_share": setting.labelled_share,
        "pseudo_weight": setting.pseudo_weight,
        "student": setting.student,
        "round_epochs": setting.round_epochs,
    }


def check_output(output: Path, resume: bool) -> None:
    """Raise UsageError when new rounds would be written over a run, or there are none to resume."""
    taken = (output / PLAN).exists()
    if not resume and (taken or (output / "last.pt").exists()):
        raise UsageError(f"{output}: already holds a run.", "Go on with --resume, or choose another --output.", path=output)
    if resume and not taken:
        raise UsageError(f"--resume: {output / PLAN} does not exist.", "Leave --resume out to begin.", path=output)


def keep_plan(output: Path, wanted: dict[str, Any]) -> None:
    """Write the plan of new rounds into ``output``, or hold it against the one that is there. Raises UsageError for another,
    DataError for one that is damaged."""
    file = output / PLAN
    if not file.exists():
        write_json(file, wanted)
        return
    then = read_json(file)
    other = [name for name in wanted if then.get(name) != wanted[name]]
    if other:
        message = f"--resume: {output} has rounds with another {', another '.join(other)}."
        raise UsageError(message, "Give the same data, configuration and options, or choose another --output.", path=output)
