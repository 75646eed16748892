"""The training loop: steps, epochs, measurements, checkpoints. Everything it needs to go on after a stop is in ``last.pt``."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from torch import nn

from apex_plugins.kernels.torch_face import use_kernels
from apex_runtime.backends.session import in_all
from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.errors import ApexError, UsageError
from apex_runtime.files import write_atomically
from apex_train.checkpoint import load_weights, read_checkpoint, state_dict_of
from apex_train.config import FitConfig
from apex_train.data.curriculum import Curriculum
from apex_train.data.loader import Batch, stop_workers, training_loader
from apex_train.engine.average import WeightAverage
from apex_train.engine.device import Placement, be_deterministic, resolve_amp, resolve_device
from apex_train.engine.distributed import Peers
from apex_train.engine.evaluate import evaluate_weights
from apex_train.engine.learned import ROUTERS, choose_learned
from apex_train.engine.logs import RunLog
from apex_train.engine.memory import MemoryGovernor, Plan, telemetry
from apex_train.engine.probe import probe_memory
from apex_train.engine.progress import TrainingProgress
from apex_train.engine.schedule import rate_factor
from apex_train.engine.selection import Selection, choose_metric
from apex_train.engine.state import EPOCH_FILE, keep_as, prune_epochs, remove_leftovers, restore_state, save_state
from apex_train.engine.step import Stepper, draw_step
from apex_train.engine.sums import Sums
from apex_train.losses.compute import KEYS
from apex_train.model.detector import ApexDetector


class TrainingError(ApexError):
    """The run cannot go on: too many steps in a row were not finite."""


class Trainer:
    """One run: ``train`` set, optional ``val`` set, a folder for what comes out, a place to compute (by ``train.device``)."""

    def __init__(
        self,
        config: FitConfig,
        train: InstanceDataset,
        val: InstanceDataset | None,
        output: Path,
        console: Console,
        placement: Placement | None = None,
    ) -> None:
        self.config, self.train_set, self.val_set, self.output, self.console = config, train, val, output, console
        self.placement = placement or resolve_device(config.train.device)
        self.peers = Peers(self.placement)
        if config.train.deterministic:
            be_deterministic()
        self._build()
        # With all tiles, where the figures are taken, the router changes nothing: its newest state is its best.
        metric = None if config.train.only == "router" else choose_metric(config.train.metric, val)
        self.selection = Selection(metric, patience=config.train.patience, min_delta=config.train.min_delta)
        self.epoch, self.batch_in_epoch, self.step = 0, 0, 0
        self.bad_steps, self.bad_in_a_row, self.skipped_steps, self.seconds = 0, 0, 0, 0.0
        self.interrupted = False
        self.sums = Sums()
        self.history: list[dict[str, Any]] = []

    def _build(self) -> None:
        """Model, average, optimiser, loader, and what computes gradients."""
        train, device = self.config.train, self.placement.device
        torch.manual_seed(train.seed)
        self.model_config = self.config.network(self.train_set.categories)
        self.model = ApexDetector(self.model_config)
        self.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this overload
        choose_learned(self.model, train)
        self.average = WeightAverage(self.model, train.ema_decay)
        groups = _parameter_groups(self.model, train.weight_decay)
        # Fused: its step allocates nothing but its state, so that it cannot run out of memory half way.
        self.optimizer = torch.optim.AdamW(groups, lr=train.learning_rate, fused=True)
        self.loader, self.sampler = training_loader(
            self.train_set, self.config, self.placement.rank, self.placement.world, pin=self.placement.on_cuda
        )
        self.curriculum = Curriculum(self.train_set, self.config.labels, self.total_steps)
        amp = resolve_amp(train.amp, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp == "fp16")
        self.stepper = Stepper(self.model, self.config, self.placement, amp, self.scaler, self.peers)
        # The largest share, in every process: they go down the same rungs, and none is at the last one before the others.
        largest = -(-self.sampler.batch // self.placement.world)
        plan = Plan(min(largest, train.micro_batch or largest))
        self.governor = MemoryGovernor(plan, train.on_oom, self.peers.any, self._say)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.config.train.epochs * len(self.sampler)

    @property
    def finished(self) -> bool:
        """True when all epochs are done, or no better one is to be hoped for."""
        return self.epoch >= self.config.train.epochs or self.selection.exhausted

    @property
    def warmup(self) -> int:
        """Steps of warm-up, at most a tenth of a short run."""
        return min(self.config.train.warmup_steps, self.total_steps // 10)

    @property
    def tile_count(self) -> int:
        """Tiles N of level 0 of a training crop."""
        rows, cols = self.model_config.grid(self.config.train.crop, self.config.train.crop)
        return rows * cols

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def initialise(self, checkpoint: Path) -> str:
        """Start from the weights of another run or format; returns what did not fit (a head of another class count, say)."""
        report = load_weights(self.model, state_dict_of(read_checkpoint(checkpoint), checkpoint))
        if len(report.missing) + len(report.reshaped) == len(self.model.state_dict()):
            raise UsageError(f"--init {checkpoint}: none of its weights fit this model.", "Choose the same model.size.")
        unlearned = [key for key in (*report.missing, *report.reshaped) if not key.startswith(ROUTERS)]
        if self.config.train.only == "router" and unlearned:
            raise UsageError(
                f"--init {checkpoint}: {unlearned[0]} does not fit, and with train.only: router it would never be learned.",
                "Start from a run with the same model and classes, or train everything.",
            )
        choose_learned(self.model, self.config.train)
        self.average = WeightAverage(self.model, self.config.train.ema_decay)
        return str(report)

    def resume(self, checkpoint: Path) -> None:
        """Go on where ``last.pt`` stopped, in the middle of an epoch if need be. Raises UsageError, ModelError."""
        restore_state(self, checkpoint)

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
        """Train to the end, to the end of epoch ``stop_after_epoch`` (1-based), or until no better epoch is to be hoped for.

        Returns the last line of the history. When ``stop`` is set, the run is saved after its current step.
        """
        last = min(self.config.train.epochs, stop_after_epoch or self.config.train.epochs)
        stop = stop or threading.Event()
        self._prepare()
        log = RunLog(self.output)
        try:
            kernels = use_kernels(self.config.train.kernels == "auto")
            with kernels, TrainingProgress(self.console, self.total_steps, self.step) as progress, _workers_named():
                self._epochs(last, stop, log, progress)
        finally:
            stop_workers(self.loader)
            log.close()
        if self.selection.exhausted and self.epoch < last:
            self._say(f"stopped early: {self.selection.stale} measurements without a better {self.selection.metric}")
        return self.history[-1] if self.history else {}

    def _epochs(self, last: int, stop: threading.Event, log: RunLog, progress: TrainingProgress) -> None:
        if self.history and not self.batch_in_epoch:  # whoever stopped it may have cut off the end of an epoch
            self._conclude(log, progress)
        while self.epoch < last and not self.selection.exhausted:
            if not self._steps(progress, stop):
                break
            self._end_epoch(log)
            self._conclude(log, progress)

    def _prepare(self) -> None:
        if self.placement.leads:
            self.output.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.output)
            values = yaml.safe_dump(self.config.model_dump(mode="json"), sort_keys=False)
            write_atomically(self.output / "config.yaml", values.encode())
        if self.placement.on_cuda and self.config.train.micro_batch is None:
            self.governor.plan = probe_memory(self)
            self._say(f"{self.placement.label}: {self.governor.plan} fits, {self._accumulation} per step")

    @property
    def _accumulation(self) -> int:
        mine = self.sampler.rows.stop - self.sampler.rows.start
        return -(-mine // self.governor.plan.micro_batch)

    def _steps(self, progress: TrainingProgress, stop: threading.Event) -> bool:
        """The rest of an epoch; False when it was interrupted, after saving."""
        self.sampler.epoch, self.sampler.first = self.epoch, self.batch_in_epoch
        if self.placement.on_cuda:
            torch.cuda.reset_peak_memory_stats(self.placement.device)
        started = time.perf_counter() - self.seconds
        for batch in self.loader:
            if isinstance(batch, ApexError):  # an image that cannot be read; errors travel from the workers as values
                raise batch
            terms = self.train_step(batch)
            self.sums.add(terms)
            self.batch_in_epoch += 1
            self.seconds = time.perf_counter() - started
            progress.step(f"{self.epoch + 1}/{self.config.train.epochs}", terms["total"], self.sampler.batch)
            (self.interrupted,) = self.peers.any([stop.is_set()])
            if self.interrupted or self._save_is_due():
                save_state(self)
            if self.interrupted:
                return False
        return True

    def _save_is_due(self) -> bool:
        interval = self.config.train.save_every
        return interval > 0 and self.step % interval == 0 and self.batch_in_epoch < len(self.sampler)

    def _end_epoch(self, log: RunLog) -> None:
        self.epoch, self.batch_in_epoch = self.epoch + 1, 0
        self.history.append(self._line())
        self.sums.clear()
        self.seconds = 0.0
        save_state(self)  # before anything that may fail on the validation images
        if self.placement.leads:
            log.write(self.history)

    def _conclude(self, log: RunLog, progress: TrainingProgress) -> None:
        """Measure the last epoch when it is due, and give its checkpoint the names it deserves. Twice changes nothing."""
        metric, line = self.selection.metric, self.history[-1]
        if metric is not None and metric not in line and self._measurement_is_due():
            assert self.val_set is not None
            line |= evaluate_weights(self.average.model, self.val_set, self.config, metric, self.peers)
            self.selection.offer(line[metric], self.epoch)
            save_state(self)  # with the figures of this epoch
        if self.placement.leads:
            self._name_checkpoint()
            log.write(self.history)
        progress.line(_summary(line, self.config.train.epochs, metric, progress.rate))

    def _measurement_is_due(self) -> bool:
        return self.epoch % self.config.train.evaluate_every == 0 or self.epoch == self.config.train.epochs

    def _name_checkpoint(self) -> None:
        if self.selection.best is None or self.selection.best_epoch == self.epoch:
            keep_as(self.output, "best.pt")
        if self.config.train.keep_epochs:
            keep_as(self.output, EPOCH_FILE.format(self.epoch))
        prune_epochs(self.output, self.config.train.keep_epochs)

    def _line(self) -> dict[str, Any]:
        """What is known of an epoch before it is measured."""
        memory = telemetry(self.placement.device) | self.governor.state() | {"accumulation": self._accumulation}
        counts = {"bad_steps": self.bad_steps, "skipped_steps": self.skipped_steps}
        head = {"epoch": self.epoch, "step": self.step, "seconds": round(self.seconds, 1)}
        rate = {"learning_rate": self.optimizer.param_groups[0]["lr"]}
        return head | self.sums.means() | rate | counts | {"memory": memory}

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One optimiser step on this process' share of an effective batch.

        A step whose loss or gradient is not finite is named, counted and left out; many in a row end the run. Returns the terms
        of the whole effective batch; a step that was given up for want of memory has none that is finite.
        """
        train = self.config.train
        images, objects = self.peers.count(len(batch)), self.peers.count(batch.objects)
        rows = slice(None) if self.peers.alone else self.sampler.rows
        batch = self.curriculum.at(self.step, batch)
        draw = draw_step(self.config, self.step, self.total_steps, self.tile_count, images, rows)
        for group in self.optimizer.param_groups:
            group["lr"] = train.learning_rate * rate_factor(self.step, self.total_steps, self.warmup, train.final_rate)
        self._to_training_mode()
        undo = _Snapshot(self.model, self.placement)
        report = self.governor.run(lambda plan: self.stepper.gradients(batch, draw, plan, images, objects), undo.restore)
        self.step += 1
        if report is None:
            self.skipped_steps += 1
            return dict.fromkeys(self.stepper.reported, math.nan) | {"tiles": float(in_all(draw.tiles))}
        terms = self._apply(self.stepper.shared(report), undo)
        return terms | {"tiles": float(in_all(draw.tiles))} | self.stepper.diagnostics()

    def _to_training_mode(self) -> None:
        self.model.train()
        if self.config.train.norm_statistics == "frozen" or self.config.train.only == "router":
            for module in self.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()

    def _apply(self, report: torch.Tensor, undo: _Snapshot) -> dict[str, float]:
        """The optimiser's step, if loss and gradient are finite."""
        self.peers.average_statistics(self.model)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.stepper.parameters, self.config.train.clip_norm)
        *values, size = torch.cat([report, norm.float().view(1)]).tolist()  # one wait for the device, not one per figure
        terms = dict(zip(self.stepper.reported, values, strict=True))
        if self._finite(terms, size):
            self.scaler.step(self.optimizer)
            self.average.update(self.model)
            self.stepper.learn_from(terms)
        else:  # the norms have already taken this batch into their running statistics
            undo.restore()
            terms["total"] = math.nan  # a step that was left out is in no mean
        self.scaler.update()
        return terms

    def _finite(self, terms: dict[str, float], norm: float) -> bool:
        broken = [key for key in KEYS if not math.isfinite(terms[key])]
        if not broken and math.isfinite(norm):
            self.bad_in_a_row = 0
            return True
        if not broken and self.scaler.is_enabled() and self.scaler.get_scale() > 1:
            return False  # fp16 overflow: the scale of the loss is halved, which is how it is found
        self.bad_steps += 1
        self.bad_in_a_row += 1
        named = ", ".join(broken) or "gradient"
        self._say(f"step {self.step}: not finite: {named}; step left out ({self.bad_steps} so far)")
        if self.bad_in_a_row >= self.config.train.bad_steps:
            raise TrainingError(
                f"{self.bad_in_a_row} steps in a row were not finite ({named}).",
                "Lower train.learning_rate, or look at the images and boxes of these batches.",
            )
        return False


@contextlib.contextmanager
def _workers_named() -> Iterator[None]:
    """The loss of a loader's worker, which torch may report out of any line of the run, as an error with a remedy."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise TrainingError(
            f"a process that loads data was lost ({str(error).strip().splitlines()[0]}).",
            "The usual cause is the machine's memory: lower train.workers. Go on with --resume.",
        ) from error


class _Snapshot:
    """What a forward pass changes beside gradients: running statistics and random states."""

    def __init__(self, model: nn.Module, placement: Placement) -> None:
        self._buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state(placement.device) if placement.on_cuda else None
        self._device = placement.device

    def restore(self) -> None:
        """Back to before."""
        for buffer, before in self._buffers:
            buffer.copy_(before)
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda, self._device)


def _parameter_groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices and filters only, not on norms, biases and rates."""
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    shapes = [parameter for parameter in learned if parameter.ndim > 1]
    others = [parameter for parameter in learned if parameter.ndim <= 1]
    return [{"params": shapes, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


def _summary(line: dict[str, Any], epochs: int, metric: str | None, rate: float) -> str:
    text = f"epoch {line['epoch']}/{epochs}"
    if "total" in line:  # absent when no step of the epoch was finite
        text += f"  loss {line['total']:.3f}  alpha {line['alpha']:.2f}"
    text += f"  {rate:.1f} images/s"
    if metric in line:
        without = f" (no tiles {line[f'{metric}_peripheral']:.3f})" if f"{metric}_peripheral" in line else ""
        text += f"  {metric} {line[metric]:.3f}{without}"
    return text
