"""Does the loader keep up with training: images per second of two workers against what a training step of ``nano`` consumes.

    python bench/loader.py ../shared/data/nuclei-dsb2018 --output bench/evidence/loader.json

Both sides run on the same processor, in turn, never at the same time: a round is one epoch of the loader with the default
augmentation, one with every augmentation on every sample, and some training steps on real batches that lie in memory. Steps are
measured at the start of the default schedule, where all tiles are looked at, and near its end, where fewer are and a step is
faster; once more there with bf16, the fastest consumer. Rates are of rounds after one that is not counted; the first epoch, which
decodes every image, is reported on its own. Memory is the peak of what one batch allocates, made of the pictures with the most
objects.
"""

from __future__ import annotations

import tempfile
import time
import tracemalloc
from collections.abc import Callable
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
from apex_train.data.loader import Batch, TrainingSet, collate_or_error, training_loader
from apex_train.engine.trainer import Trainer

EVERYTHING = {
    "augment.affine": 1,
    "augment.rotate": 180,
    "augment.mosaic": 1,
    "augment.copy_paste": 1,
    "augment.saturation": 0.4,
    "augment.hue": 20,
    "augment.gamma": 0.3,
}
LATE = 0.9  # share of the schedule that is behind the late steps
REACH = 2.0  # times what the step consumes

Rate = Callable[[], float]


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--split", default="train", show_default=True)
@click.option("--workers", default=2, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--rounds", default=7, show_default=True)
@click.option("--steps", default=4, show_default=True, help="Training steps of a turn; an even number.")
@click.option("--output", type=click.Path(path_type=Path))
def main(data: Path, split: str, workers: int, threads: int, rounds: int, steps: int, output: Path | None) -> None:
    """Measure and print images per second; ``--output`` also writes the raw samples."""
    torch.set_num_threads(threads)
    dataset = open_dataset(data, split)
    configs = {
        "defaults": load_config(None, {"train.workers": workers}),
        "everything": load_config(None, EVERYTHING | {"train.workers": workers}),
    }
    loaders = {f"loader, {name}": _loader(dataset, config) for name, config in configs.items()}
    first = {name: run() for name, run in loaders.items()}
    with tempfile.TemporaryDirectory() as folder:
        steppers = _steppers(dataset, configs["defaults"], steps, Path(folder))
        samples = measure(loaders | steppers, rounds)
    ratios = {f"{a} over {b}": ratio(samples[a], samples[b]) for a in loaders for b in steppers}
    memory = {name: batch_memory(dataset, config) for name, config in configs.items()}
    _tell(samples, first, ratios, memory)
    if output is not None:
        config = configs["defaults"].train
        contract = {
            "timed": "images per second: an epoch of the loader, its pictures in memory; training steps on batches in memory",
            "data": data.name,
            "split": split,
            "images": len(dataset),
            "workers": workers,
            "step_threads": threads,
            "batch": config.batch,
            "size": config.size,
            "crop": config.crop,
            "rounds": rounds,
            "steps_per_turn": steps,
            "everything": EVERYTHING,
        }
        rows = {name: float(np.median(values)) for name, values in samples.items()}
        content = {"contract": contract, "images_per_second": rows, "first_epoch": first, "ratios": ratios}
        write_evidence(output, content | {"batch_memory_bytes": memory, "samples": samples})


def measure(subjects: dict[str, Rate], rounds: int) -> dict[str, list[float]]:
    """What each subject returns, per round; every round runs all in turn, and the first round is not counted."""
    samples: dict[str, list[float]] = {name: [] for name in subjects}
    for index in range(rounds + 1):
        for name, run in subjects.items():
            value = run()
            if index:
                samples[name].append(value)
    return samples


def _loader(dataset: InstanceDataset, config: FitConfig) -> Rate:
    """One epoch of the loader, each call the next one."""
    loader, sampler = training_loader(dataset, config)

    def epoch() -> float:
        start = time.perf_counter()
        images = sum(len(batch.images) for batch in loader)
        sampler.epoch += 1
        return images / (time.perf_counter() - start)

    return epoch


def _steppers(dataset: InstanceDataset, config: FitConfig, steps: int, folder: Path) -> dict[str, Rate]:
    loader, _ = training_loader(dataset, config)
    batches = [batch for batch, _ in zip(loader, range(8), strict=False) if isinstance(batch, Batch)]
    fast = config.model_copy(update={"train": config.train.model_copy(update={"amp": "bf16"})})
    steppers = {}
    for name, chosen, share in (("all tiles", config, 0.0), ("late", config, LATE), ("late, bf16", fast, LATE)):
        trainer = Trainer(chosen, dataset, None, folder, Console(quiet=True))
        trainer.step = int(share * trainer.total_steps)
        steppers[f"step, {name}"] = _stepper(trainer, batches, steps)
    return steppers


def _stepper(trainer: Trainer, batches: list[Batch], steps: int) -> Rate:
    def turn() -> float:
        start = time.perf_counter()
        for index in range(steps):
            trainer.train_step(batches[index % len(batches)])
        return steps * len(batches[0].images) / (time.perf_counter() - start)

    return turn


def batch_memory(dataset: InstanceDataset, config: FitConfig) -> dict[str, int]:
    """Bytes of a batch of the pictures with the most objects, and the peak while it is made: images, masks and all in between."""
    crowded = sorted(range(len(dataset)), key=lambda i: -len(dataset.instances(i)))[: config.train.batch]
    samples = TrainingSet(dataset, config)
    for index in crowded:
        samples.sources[index]  # decoded pictures are the cache's, which has a limit of its own
    tracemalloc.start()
    batch = collate_or_error([samples[0, index] for index in crowded])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(batch, Batch)
    tensors = (batch.images, batch.boxes, batch.labels, batch.masks, batch.has_mask, batch.ignore)
    return {"objects": batch.objects, "batch": sum(tensor.nbytes for tensor in tensors), "peak": peak}


def _tell(
    samples: dict[str, list[float]], first: dict[str, float], ratios: dict[str, float], memory: dict[str, dict[str, int]]
) -> None:
    for name, values in samples.items():
        opening = f"  (first epoch {first[name]:.0f})" if name in first else ""
        click.echo(f"{name:<22}{np.median(values):9.1f} images/s{opening}")
    for name, value in ratios.items():
        click.echo(f"{name:<46}x{value:7.1f}  {'reached' if value >= REACH else 'MISSED'}")
    for name, sizes in memory.items():
        batch, peak = (sizes[key] / 2**20 for key in ("batch", "peak"))
        click.echo(f"batch, {name}: {sizes['objects']} objects, {batch:.1f} MiB, peak {peak:.1f} MiB")


if __name__ == "__main__":
    main()
