"""Train and export the Mask2Former of ``detr.yaml``; ``run.py detr`` starts it in an environment with ``transformers``.

The learning rate falls with the processor time that is spent, start included, and is at its end when the limit is reached: no
epochs need to be guessed. Images, augmentation and order are those of our own training.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import torch
import yaml

sys.path[:0] = [str(Path(__file__).resolve().parents[folder]) for folder in (1, 2)]

from apex_runtime.data.open import open_dataset  # noqa: E402
from apex_runtime.errors import ApexError  # noqa: E402
from apex_train.config import FitConfig  # noqa: E402
from apex_train.data.loader import Batch, training_loader  # noqa: E402
from baselines.detr_network import build, loss_of, write_graph  # noqa: E402

LOG_NAME = "log.jsonl"
MOST_DIFFERENCE = 1e-3  # of a score between torch and ONNX Runtime


@click.group()
def main() -> None:
    """Train it, export it."""


@main.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--config", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--cpu-seconds", required=True, type=click.FloatRange(0, min_open=True))
@click.option("--size", required=True, type=int)
@click.option("--seed", default=0)
@click.option("--threads", default=1)
@click.option("--weights", help="A folder, or a name of the hub.")
@click.option("--output", required=True, type=click.Path(path_type=Path))
def train(
    data: Path, config: Path, cpu_seconds: float, size: int, seed: int, threads: int, weights: str | None, output: Path
) -> None:
    """Until the processor time of this process has reached the limit."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    wanted = yaml.safe_load(config.read_text())
    learning = wanted["training"]
    dataset = open_dataset(data, "train")
    names = tuple(category.name for category in dataset.categories)
    network = build(wanted["network"], names, weights).train()
    optimizer = torch.optim.AdamW(network.parameters(), learning["learning_rate"], weight_decay=learning["weight_decay"])
    section = {"size": size, "crop": size, "batch": learning["batch"], "seed": seed, "workers": 0}
    fit = FitConfig.model_validate({"train": section, "augment": wanted["augment"]})
    output.mkdir(parents=True, exist_ok=True)
    with (output / LOG_NAME).open("w", buffering=1) as log:
        for step, (epoch, batch) in enumerate(_batches(dataset, fit)):
            rate = learning["learning_rate"] * rate_at(time.process_time() / cpu_seconds, learning)
            loss = _step(network, optimizer, batch, rate, learning["clip_norm"])
            spent = time.process_time()
            log.write(json.dumps({"step": step, "epoch": epoch, "loss": loss, "rate": rate, "cpu_seconds": spent}) + "\n")
            if spent >= cpu_seconds:
                break
    network.save_pretrained(output)


def rate_at(share: float, learning: dict[str, Any]) -> float:
    """Factor on the learning rate after a share of the limit: a linear warm-up, then half a cosine."""
    if share < learning["warmup"]:
        return share / learning["warmup"]
    progress = min(1.0, (share - learning["warmup"]) / (1 - learning["warmup"]))
    final = float(learning["final_rate"])
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


def _batches(dataset: Any, fit: FitConfig) -> Iterator[tuple[int, Batch]]:
    """Epoch after epoch, without end."""
    loader, sampler = training_loader(dataset, fit)
    for epoch in itertools.count():
        sampler.epoch = epoch
        for batch in loader:
            if isinstance(batch, ApexError):
                raise batch
            yield epoch, batch


def _step(network: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, rate: float, clip_norm: float) -> float:
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss = loss_of(network, batch)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), clip_norm)
    optimizer.step()
    return float(loss.detach())


@main.command()
@click.argument("weights", type=click.Path(exists=True, path_type=Path))
@click.option("--size", required=True, type=int)
@click.option("--output", required=True, type=click.Path(path_type=Path))
def export(weights: Path, size: int, output: Path) -> None:
    """WEIGHTS, a folder that train wrote, as an ONNX file."""
    from transformers import AutoConfig

    names = tuple(AutoConfig.from_pretrained(weights).id2label.values())
    difference = write_graph(build({}, names, str(weights)), size, str(output))
    if difference > MOST_DIFFERENCE:
        raise click.ClickException(f"{output}: scores differ by {difference:.2g} from those of torch")
    click.echo(f"scores differ by {difference:.2g}")


if __name__ == "__main__":
    main()
