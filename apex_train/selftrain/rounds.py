"""The rounds: the averaged weights of one label the images without labels, the next one learns from both kinds.

Every round has a folder, which is a run as ``apex-train fit`` leaves one, and what is finished of it is known by its files: so
rounds that were stopped or killed go on where they were.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.errors import UsageError
from apex_runtime.fairness.evidence import read_json
from apex_runtime.files import write_atomically
from apex_runtime.pipeline.results import write_json
from apex_train.checkpoint import file_sha256, load_model
from apex_train.data.sample_weights import write_sample_weights
from apex_train.engine.device import Placement
from apex_train.engine.distributed import Peers
from apex_train.engine.evaluate import evaluate_weights
from apex_train.engine.selection import choose_metric
from apex_train.engine.trainer import Trainer
from apex_train.selftrain.joined import Joined, PseudoLabelled, looks
from apex_train.selftrain.pool import Pool
from apex_train.selftrain.setting import Setting
from apex_train.selftrain.teach import LABELS, Stopped, label

ENTRY, WEIGHTS = "round.json", "weights.json"
TEACHER = "best.pt"  # the averaged weights of a round: of its best epoch on val, of its newest without val


@dataclass(frozen=True, eq=False)
class Rounds:
    """All rounds of ``output``. ``val`` measures each and chooses its best epoch, where there is one."""

    output: Path
    setting: Setting
    train: InstanceDataset
    val: InstanceDataset | None
    pool: Pool
    placement: Placement
    console: Console

    def folder(self, number: int) -> Path:
        """Where a round writes."""
        return self.output / f"round-{number}"

    def give(self, checkpoint: Path) -> None:
        """Let a checkpoint stand in for round 0. Raises ModelError, UsageError when its classes are not those of the data."""
        classes = load_model(checkpoint).config.classes
        ours, theirs = ([category.name for category in each] for each in (self.train.categories, classes))
        if ours != theirs:
            message = f"--init {checkpoint}: its classes ({', '.join(theirs[:5])}) are not {', '.join(ours[:5])}."
            raise UsageError(message, "Train a first round on --data, without --init.", path=checkpoint)
        write_atomically(self.folder(0) / TEACHER, checkpoint.read_bytes(), durable=True)

    def entries(self) -> list[dict[str, Any]]:
        """What is known of the finished rounds, for the report. Raises DataError for a file that is damaged."""
        files = [self.folder(number) / ENTRY for number in range(self.setting.rounds + 1)]
        return [read_json(file) for file in files if file.is_file()]

    def run(self, stop: threading.Event) -> bool:
        """Do what is left; False when ``stop`` was set before the end. Raises what labelling and training raise."""
        for number in range(len(self.entries()), self.setting.rounds + 1):
            self._say(f"round {number} of {self.setting.rounds}")
            try:
                entry = self._round(number, stop)
            except Stopped:
                return False
            if entry is None:
                return False
            write_json(self.folder(number) / ENTRY, {"round": number} | entry)
        return True

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def _round(self, number: int, stop: threading.Event) -> dict[str, Any] | None:
        """The entry of a round; None when it was stopped."""
        folder = self.folder(number)
        if number:
            return self._taught(number, stop)
        if (folder / TEACHER).is_file() and not (folder / "last.pt").is_file():  # a training writes last.pt first
            return self._given(folder)
        trainer = Trainer(self.setting.config, self.train, self.val, folder, self.console, self.placement)
        return self._trained(trainer, "labels", 0, None, stop)

    def _given(self, folder: Path) -> dict[str, Any]:
        """The entry of a round 0 that is a checkpoint."""
        config, value = self.setting.config, None
        metric = choose_metric(config.train.metric, self.val)
        if metric is not None and self.val is not None:
            model = load_model(folder / TEACHER).to(self.placement.device)
            value = evaluate_weights(model, self.val, config, metric, Peers(self.placement))[metric]
        nothing = {"labelled": 0, "pseudo": 0}, 0, 0, 0.0
        return _entry("checkpoint", *nothing, metric, value, folder / TEACHER, None)

    def _taught(self, number: int, stop: threading.Event) -> dict[str, Any] | None:
        """Let the round before label, and learn."""
        folder, setting, teacher = self.folder(number), self.setting, self.folder(number - 1) / TEACHER
        device = str(self.placement.device)
        account = label(teacher, self.pool, self.val, setting, folder, device, stop)
        pseudo = PseudoLabelled(folder / LABELS, self.pool.pictures, self.train.categories)
        joined = Joined(self.train, pseudo)
        self._write_weights(folder / WEIGHTS, joined, len(pseudo))
        epochs = setting.epochs_for(len(self.train), len(joined))
        config = setting.of_round(number, epochs, folder / WEIGHTS)
        trainer = Trainer(config, joined, self.val, folder, self.console, self.placement)
        if setting.student == "teacher" and not (folder / "last.pt").is_file():
            trainer.initialise(teacher)
        labelling = _labelling_facts(account, file_sha256(teacher))
        return self._trained(trainer, setting.student, len(pseudo), labelling, stop)

    def _write_weights(self, path: Path, joined: Joined, pseudo: int) -> None:
        labelled = len(joined) - pseudo
        each = looks(labelled, pseudo, self.setting.labelled_share)
        weights = {record.file_name: each[place >= labelled] for place, record in enumerate(joined.records)}
        write_sample_weights(path, weights, {"labelled_share": self.setting.labelled_share})

    def _trained(
        self, trainer: Trainer, start: str, pseudo: int, labelling: dict[str, Any] | None, stop: threading.Event
    ) -> dict[str, Any] | None:
        last = trainer.output / "last.pt"
        if last.is_file():
            trainer.resume(last)
            self._say(f"resumed at epoch {trainer.epoch + 1}, step {trainer.step}")
        trainer.fit(stop=stop)
        if not trainer.finished:
            return None
        images = {"labelled": len(trainer.train_set) - pseudo, "pseudo": pseudo}
        seconds = sum(line["seconds"] for line in trainer.history)
        facts = trainer.epoch, trainer.step, round(seconds, 1), trainer.selection.metric, trainer.selection.best
        return _entry(start, images, *facts, trainer.output / TEACHER, labelling)


def _entry(
    start: str,
    images: dict[str, int],
    epochs: int,
    steps: int,
    seconds: float,
    metric: str | None,
    value: float | None,
    checkpoint: Path,
    labelling: dict[str, Any] | None,
) -> dict[str, Any]:
    return {
        "from": start,
        "images": images,
        "epochs": epochs,
        "steps": steps,
        "seconds": seconds,
        "metric": metric,
        "value": value,
        "checkpoint_sha256": file_sha256(checkpoint),
        "labelling": labelling,
    }


def _labelling_facts(account: dict[str, Any], teacher_sha256: str) -> dict[str, Any]:
    report = account["report"]
    truth = report["truth"]
    last = {"precision": None, "recall": None} if truth is None else truth["steps"][-1]
    kept = {name: report[name] for name in ("limits", "calibration", "labels", "unsure", "images")}
    figures = {name: last[name] for name in ("precision", "recall")}
    return {"teacher_sha256": teacher_sha256, "seconds": account["seconds"]} | kept | figures
