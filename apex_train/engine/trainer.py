"""The training loop: steps, epochs, evaluation, checkpoints. Everything it needs to go on after a stop is in ``last.pt``."""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from rich.console import Console
from torch import Tensor

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.errors import ApexError, UsageError
from apex_runtime.files import write_atomically
from apex_train.checkpoint import (
    FORMAT_VERSION,
    load_weights,
    read_checkpoint,
    save_checkpoint,
    state_dict_of,
)
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

    def __init__(
        self, config: FitConfig, train: InstanceDataset, val: InstanceDataset | None, output: Path, console: Console
    ) -> None:
        metric = pick_metric(val) if val is not None else None
        self.config, self.train_set, self.output, self.console = config, train, output, console
        self.val_set = val if metric is not None else None  # without an object there is nothing to measure
        self.metric = metric or ""
        torch.manual_seed(config.train.seed)
        self.model_config = config.network(train.categories)
        self.model = ApexDetector(self.model_config)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this overload
        self.average = WeightAverage(self.model, config.train.ema_decay)
        self.optimizer = torch.optim.AdamW(
            _parameter_groups(self.model, config.train.weight_decay), lr=config.train.learning_rate
        )
        self.loader, self.sampler = training_loader(train, config)
        self.epoch, self.step, self.bad_steps, self.bad_in_a_row = 0, 0, 0, 0
        self.best: float | None = None
        self.history: list[dict[str, Any]] = []

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.config.train.epochs * len(self.loader)

    @property
    def _warmup(self) -> int:
        """Steps of warm-up, at most a tenth of a short run."""
        return min(self.config.train.warmup_steps, self.total_steps // 10)

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
        if content.get("format_version") != FORMAT_VERSION or state.get("fingerprint") != self.fingerprint:
            raise UsageError(
                f"{checkpoint}: belongs to a run with other data, another configuration or another version.",
                "Give the same --data, configuration and --set values, or start a new run with --init.",
            )
        self.model.load_state_dict(state["raw_model"])
        self.average.model.load_state_dict(content["model"])
        self.average.steps = state["average_steps"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step, self.bad_steps = state["epoch"], state["step"], state["bad_steps"]
        self.best, self.history = state["best"], state["history"]
        torch.set_rng_state(state["rng"])

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what must not change within a run: the annotations, and every value that changes what is learned."""
        config = self.config.model_dump(mode="json")
        for name in ("workers", "evaluate_every", "bad_steps", "dataset_type"):  # the type is part of ``data``
            del config["train"][name]
        return hashlib.sha256(json.dumps([config, self.data], sort_keys=True).encode()).hexdigest()

    @cached_property
    def data(self) -> dict[str, dict[str, Any]]:
        """Layout, number of images and fingerprint of the splits of this run, for its checkpoints."""
        splits = {"train": self.train_set, "val": self.val_set}
        return {
            name: {"dataset_type": item.kind, "split": item.split, "images": len(item), "fingerprint": item.fingerprint()}
            for name, item in splits.items()
            if item is not None
        }

    def fit(self, stop_after_epoch: int | None = None, stop: threading.Event | None = None) -> dict[str, Any]:
        """Train to the end, or to the end of epoch ``stop_after_epoch`` (1-based). Returns the last line of the history.

        When ``stop`` is set, the epoch in progress is given up after its current step; ``last.pt`` holds the epochs before it.
        """
        self.output.mkdir(parents=True, exist_ok=True)
        values = yaml.safe_dump(self.config.model_dump(mode="json"), sort_keys=False)
        write_atomically(self.output / "config.yaml", values.encode())
        last = min(self.config.train.epochs, stop_after_epoch or self.config.train.epochs)
        stop = stop or threading.Event()
        with TrainingProgress(self.console, self.total_steps, self.step) as progress:
            while self.epoch < last and not stop.is_set():
                self._epoch(progress, stop)
        return self.history[-1] if self.history else {}

    def _epoch(self, progress: TrainingProgress, stop: threading.Event) -> None:
        self.sampler.epoch = self.epoch
        seen: list[dict[str, float]] = []
        started = time.perf_counter()
        for batch in self.loader:
            if isinstance(batch, ApexError):  # an image that cannot be read; errors travel from the workers as values
                raise batch
            terms = self.train_step(batch)
            if math.isfinite(terms["total"]):
                seen.append(terms)
            progress.step(f"{self.epoch + 1}/{self.config.train.epochs}", terms["total"], len(batch.images))
            if stop.is_set():
                return
        self.epoch += 1
        line: dict[str, Any] = {"epoch": self.epoch, "step": self.step, "seconds": round(time.perf_counter() - started, 1)}
        line |= {key: round(float(np.mean([terms[key] for terms in seen])), 5) for key in (seen[0] if seen else ())}
        self.history.append(line | {"bad_steps": self.bad_steps})
        self._save_last()  # before anything that may fail on the validation images
        if self._evaluation_is_due():
            assert self.val_set is not None
            self.history[-1] |= evaluate_weights(self.average.model, self.val_set, self.config.train.size, self.metric)
        self._keep_best()
        progress.line(_summary(self.history[-1], self.config.train.epochs, self.metric, progress.rate))

    def _evaluation_is_due(self) -> bool:
        due = self.epoch % self.config.train.evaluate_every == 0 or self.epoch == self.config.train.epochs
        return self.val_set is not None and due

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One optimiser step. A step whose loss or gradient is not finite is named, counted and left out; many in a row end
        the run."""
        train = self.config.train
        rng = np.random.default_rng([train.seed, self.step])
        rows, cols = self.model_config.grid(train.crop, train.crop)
        tiles = draw_tiles(self.step, self.total_steps, rows * cols, self.config.routing, rng)
        bonus = torch.from_numpy(exploration_bonus(len(batch.images), rows * cols, tiles, self.config.routing.explore, rng))
        for group in self.optimizer.param_groups:
            group["lr"] = train.learning_rate * rate_factor(self.step, self.total_steps, self._warmup, train.final_rate)
        self.model.train()
        statistics = [buffer.clone() for buffer in self.model.buffers()]
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
        else:  # the norms have already taken this batch into their running statistics
            for buffer, before in zip(self.model.buffers(), statistics, strict=True):
                buffer.copy_(before)
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

    def _save_last(self) -> None:
        """``last.pt``, then the log: a crash in between costs a line of the log, which the next epoch writes again."""
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
            "fingerprint": self.fingerprint,
            "config": self.config.model_dump(mode="json"),
        }
        save_checkpoint(self.output / "last.pt", self.average.model, self.model_config, training, self.data)
        log = "".join(json.dumps(line) + "\n" for line in self.history)
        write_atomically(self.output / "log.jsonl", log.encode())

    def _keep_best(self) -> None:
        """``best.pt``: the best measured epoch; the newest one as long as nothing was measured."""
        value = self.history[-1].get(self.metric)
        if self.best is None or (value is not None and value > self.best):
            self.best = value
            save_checkpoint(self.output / "best.pt", self.average.model, self.model_config, data=self.data)
        if value is not None:
            self._save_last()  # with the figures of this epoch


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
