"""The training loop: steps, epochs, evaluation, checkpoints. Everything it needs to go on after a stop is in ``last.pt``."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from rich.console import Console
from torch import Tensor

from apex_runtime.data.coco import CocoDataset
from apex_runtime.errors import ApexError, UsageError
from apex_train.checkpoint import load_weights, read_checkpoint, save_checkpoint, state_dict_of
from apex_train.config import FitConfig
from apex_train.data.loader import Batch, training_loader
from apex_train.engine.average import WeightAverage
from apex_train.engine.evaluate import evaluate_weights, pick_metric
from apex_train.engine.progress import TrainingProgress
from apex_train.engine.schedule import draw_tiles, exploration_bonus, rate_factor
from apex_train.losses.compute import compute_training_losses
from apex_train.model.detector import ApexDetector


class TrainingError(ApexError):
    """The run cannot go on: too many steps in a row were not finite."""


class Trainer:
    """One run: ``train`` set, optional ``val`` set, a folder for what comes out."""

    def __init__(self, config: FitConfig, train: CocoDataset, val: CocoDataset | None, output: Path, console: Console) -> None:
        self.config, self.train_set, self.val_set, self.output, self.console = config, train, val, output, console
        torch.manual_seed(config.train.seed)
        self.model_config = config.network(train.categories)
        self.model = ApexDetector(self.model_config)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this overload
        self.average = WeightAverage(self.model, config.train.ema_decay)
        self.optimizer = torch.optim.AdamW(
            _parameter_groups(self.model, config.train.weight_decay), lr=config.train.learning_rate
        )
        self.loader, self.sampler = training_loader(train, config)
        self.metric = pick_metric(val) if val is not None else ""
        self.epoch, self.step, self.bad_steps, self.bad_in_a_row = 0, 0, 0, 0
        self.best: float | None = None
        self.history: list[dict[str, Any]] = []

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.config.train.epochs * len(self.loader)

    def initialise(self, checkpoint: Path) -> str:
        """Start from the weights of another run or format; returns what did not fit (a head of another class count, say)."""
        report = load_weights(self.model, state_dict_of(read_checkpoint(checkpoint), checkpoint))
        if len(report.missing) + len(report.reshaped) == len(self.model.state_dict()):
            raise UsageError(f"--init {checkpoint}: none of its weights fit this model.", "Choose the same model.size.")
        self.average = WeightAverage(self.model, self.config.train.ema_decay)
        return str(report)

    def resume(self, checkpoint: Path) -> None:
        """Go on where ``last.pt`` stopped: weights, average, optimiser, counters, random state, history."""
        content = read_checkpoint(checkpoint)
        state = content.get("training")
        if not isinstance(state, dict):
            raise UsageError(
                f"{checkpoint}: has no training state to resume.", "Resume from last.pt; use --init for weights alone."
            )
        if state["fingerprint"] != self.fingerprint():
            raise UsageError(
                f"{checkpoint}: belongs to a run with other data or another configuration.",
                "Give the same --data, configuration and --set values, or start a new run with --init.",
            )
        self.model.load_state_dict(state["raw_model"])
        self.average.model.load_state_dict(content["model"])
        self.average.steps = state["average_steps"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step, self.bad_steps = state["epoch"], state["step"], state["bad_steps"]
        self.best, self.history = state["best"], state["history"]
        torch.set_rng_state(state["rng"])

    def fingerprint(self) -> str:
        """Hash of what must not change within a run: the configuration and the annotated images."""
        images = [(record.image_id, record.file_name) for record in self.train_set.records]
        text = json.dumps([self.config.model_dump(mode="json"), images], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def fit(self, stop_after_epoch: int | None = None) -> dict[str, Any]:
        """Train to the end, or to the end of epoch ``stop_after_epoch`` (1-based). Returns the last line of the history."""
        self.output.mkdir(parents=True, exist_ok=True)
        (self.output / "config.yaml").write_text(yaml.safe_dump(self.config.model_dump(mode="json"), sort_keys=False))
        last = min(self.config.train.epochs, stop_after_epoch or self.config.train.epochs)
        with TrainingProgress(self.console, self.total_steps, self.step) as progress:
            while self.epoch < last:
                self._epoch(progress)
        return self.history[-1] if self.history else {}

    def _epoch(self, progress: TrainingProgress) -> None:
        self.sampler.epoch = self.epoch
        sums: dict[str, float] = {}
        started = time.perf_counter()
        for batch in self.loader:
            terms = self.train_step(batch)
            for key, value in terms.items():
                sums[key] = sums.get(key, 0.0) + value
            progress.step(f"{self.epoch + 1}/{self.config.train.epochs}", terms["total"], len(batch.images))
        self.epoch += 1
        line: dict[str, Any] = {"epoch": self.epoch, "step": self.step, "seconds": round(time.perf_counter() - started, 1)}
        line |= {key: round(value / len(self.loader), 5) for key, value in sums.items()} | {"bad_steps": self.bad_steps}
        if self.val_set is not None and (
            self.epoch % self.config.train.evaluate_every == 0 or self.epoch == self.config.train.epochs
        ):
            line |= evaluate_weights(self.average.model, self.val_set, self.config.train.size, self.metric)
        self.history.append(line)
        self._save(line)
        progress.line(_summary(line, self.config.train.epochs, self.metric, progress.rate))

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One optimiser step. A step whose loss or gradient is not finite is named, counted and left out; many in a row end
        the run."""
        train = self.config.train
        rng = np.random.default_rng([train.seed, self.step])
        rows, cols = self.model_config.grid(train.crop, train.crop)
        tiles = draw_tiles(self.step, self.total_steps, rows * cols, self.config.routing, rng)
        bonus = torch.from_numpy(exploration_bonus(len(batch.images), rows * cols, tiles, self.config.routing.explore, rng))
        for group in self.optimizer.param_groups:
            group["lr"] = train.learning_rate * rate_factor(self.step, self.total_steps, train.warmup_steps, train.final_rate)
        self.model.train()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=train.amp == "bf16"):
            # The peripheral pass teaches the K = 0 line and the router; every other step is enough and saves a tenth of the time.
            outputs = self.model(batch.images, tiles, bonus, with_peripheral=self.step % 2 == 0)
        total, terms = compute_training_losses(outputs, batch, self.config.loss, self.model_config.tile)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), train.clip_norm)
        self.step += 1
        if self._finite(terms, norm):
            self.optimizer.step()
            self.average.update(self.model)
        return {key: float(value.detach()) for key, value in terms.items()} | {
            "alpha": float(outputs.alpha.detach().float().mean()),
            "tiles": float(tiles),
        }

    def _finite(self, terms: dict[str, Tensor], norm: Tensor) -> bool:
        broken = [key for key, value in terms.items() if not torch.isfinite(value)]
        if not broken and torch.isfinite(norm):
            self.bad_in_a_row = 0
            return True
        self.bad_steps += 1
        self.bad_in_a_row += 1
        named = ", ".join(broken) or "gradient"
        self.console.print(f"step {self.step}: not finite: {named}; step left out ({self.bad_steps} so far)", soft_wrap=True)
        if self.bad_in_a_row >= self.config.train.bad_steps:
            raise TrainingError(
                f"{self.bad_in_a_row} steps in a row were not finite ({named}).",
                "Lower train.learning_rate, or look at the images and boxes of these batches.",
            )
        return False

    def _save(self, line: dict[str, Any]) -> None:
        with (self.output / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        value = line.get(self.metric)
        better = self.val_set is None or (value is not None and (self.best is None or value > self.best))
        if better:
            self.best = value
            save_checkpoint(self.output / "best.pt", self.average.model, self.model_config)
        training = {
            "raw_model": self.model.state_dict(),
            "average_steps": self.average.steps,
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "bad_steps": self.bad_steps,
            "best": self.best,
            "history": self.history,
            "rng": torch.get_rng_state(),
            "fingerprint": self.fingerprint(),
            "config": self.config.model_dump(mode="json"),
        }
        save_checkpoint(self.output / "last.pt", self.average.model, self.model_config, training)


def _parameter_groups(model: torch.nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices and filters only, not on norms, biases and rates."""
    shapes = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [{"params": shapes, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


def _summary(line: dict[str, Any], epochs: int, metric: str, rate: float) -> str:
    text = f"epoch {line['epoch']}/{epochs}  loss {line['total']:.3f}  alpha {line['alpha']:.2f}  {rate:.1f} images/s"
    if metric in line:
        text += f"  {metric} {line[metric]:.3f} (no tiles {line[metric + '_peripheral']:.3f})"
    return text
