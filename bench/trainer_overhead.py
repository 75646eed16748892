"""What does the trainer cost beside the arithmetic: steps per second of ``fit`` over a bare loop of the same model and data.

    python bench/trainer_overhead.py ../shared/data/nuclei-dsb2018 --output bench/evidence/trainer-overhead.json

The bare loop is what one would write by hand: the same loader, forward pass, losses, backward pass, the same optimiser. ``fit``
adds the governor, clipping, the search for what is not finite, the averaged weights, the log, progress and checkpoints (every
``train.save_every`` steps and at the end of every epoch). Both see the same batches and the same K, epoch by
epoch in turn in one process, after one epoch of each that is not counted.
"""

from __future__ import annotations

import io
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import torch
from evidence import write_evidence
from rich.console import Console

from apex_runtime.benchmark.turns import ratio
from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.data.open import open_dataset
from apex_train.config import FitConfig, load_config
from apex_train.data.loader import Batch, training_loader
from apex_train.engine.device import Placement, resolve_amp, resolve_device
from apex_train.engine.step import AMP_TYPES, draw_step
from apex_train.engine.trainer import Trainer
from apex_train.losses.compute import compute_training_losses
from apex_train.model.detector import ApexDetector

REACH = 0.9


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--device", default="auto", show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--workers", default=0, show_default=True, help="0: epochs in turn would start the processes anew.")
@click.option("--batch", default=16, show_default=True)
@click.option("--epochs", default=3, show_default=True, help="Counted epochs of each.")
@click.option("--output", type=click.Path(path_type=Path))
def main(data: Path, device: str, threads: int, workers: int, batch: int, epochs: int, output: Path | None) -> None:
    """Measure and print steps per second; ``--output`` also writes the samples."""
    torch.set_num_threads(threads)
    config = load_config(
        None, {"train.workers": workers, "train.batch": batch, "train.micro_batch": batch, "train.epochs": epochs + 1}
    )
    placement = resolve_device(device)
    samples = measure(open_dataset(data, "train"), config, placement)
    figures = {name: float(np.median(values)) for name, values in samples.items()}
    share = ratio(samples["fit"], samples["bare loop"])
    click.echo("  ".join(f"{name}: {value:.2f} steps/s" for name, value in figures.items()))
    click.echo(f"fit over bare loop: {share:.3f} (asked {REACH})")
    if output is not None:
        content = {"device": placement.label, "threads": threads, "config": config.model_dump(mode="json")}
        write_evidence(output, content | {"steps_per_second": samples, "medians": figures, "fit_over_bare_loop": share})


def measure(dataset: InstanceDataset, config: FitConfig, placement: Placement) -> dict[str, list[float]]:
    """Steps per second of every counted epoch of both."""
    samples: dict[str, list[float]] = {"fit": [], "bare loop": []}
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(config, dataset, None, Path(folder), Console(file=io.StringIO()), placement)
        bare = BareLoop(dataset, config, placement)
        for epoch in range(config.train.epochs):
            for name in samples:
                started = time.perf_counter()
                if name == "fit":
                    trainer.fit(epoch + 1)
                else:
                    bare.epoch(epoch)
                if placement.on_cuda:
                    torch.cuda.synchronize()
                samples[name].append(len(trainer.sampler) / (time.perf_counter() - started))
    return {name: values[1:] for name, values in samples.items()}


class BareLoop:
    """The least that trains the same network on the same batches."""

    def __init__(self, dataset: InstanceDataset, config: FitConfig, placement: Placement) -> None:
        self.config, self.placement = config, placement
        self.amp = resolve_amp(config.train.amp, placement.device)
        torch.manual_seed(config.train.seed)
        self.model = ApexDetector(config.network(dataset.categories))
        self.model.to(placement.device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=config.train.learning_rate, fused=True)
        self.loader, self.sampler = training_loader(dataset, config, pin=placement.on_cuda)
        self.step = 0

    def epoch(self, number: int) -> None:
        """Every batch of an epoch."""
        self.sampler.epoch = number
        self.model.train()
        for batch in self.loader:
            assert isinstance(batch, Batch), batch
            self._step(batch.to(self.placement.device))

    def _step(self, batch: Batch) -> None:
        rows, cols = self.model.config.grid(*batch.images.shape[1:3])
        total = self.config.train.epochs * len(self.sampler)
        draw = draw_step(self.config, self.step, total, rows * cols, len(batch), self.sampler.rows)
        bonus = torch.from_numpy(draw.bonus).to(self.placement.device)
        kind = AMP_TYPES.get(self.amp, torch.bfloat16)
        with torch.autocast(self.placement.device.type, dtype=kind, enabled=self.amp != "off"):
            outputs = self.model(batch.images, draw.tiles, bonus, with_peripheral=draw.with_peripheral)
        loss, _ = compute_training_losses(outputs, batch, self.config.loss)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.step += 1


if __name__ == "__main__":
    main()
