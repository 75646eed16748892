"""Does the router know which tiles are worth a look: per image, Spearman's rank correlation of its utilities with the truth.

    python bench/router_oracle.py engines/nuclei-nano/checkpoint.pt ../shared/data/nuclei-dsb2018 --output FILE

The truth of a tile is what the training loss loses by looking at it: loss without it minus loss with it, two real forward passes
with the other tiles as they are. Which others are looked at matters, so that the truth itself is known only up to its background:
the ceiling is the correlation of the truth over the router's own choice with the truth over a random choice of as many tiles.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch
from evidence import write_evidence

from apex_runtime.data.open import open_dataset
from apex_train.checkpoint import load_model
from apex_train.config import FitConfig, load_config
from apex_train.data.loader import Batch
from apex_train.engine.evaluate import whole_pictures
from apex_train.engine.schedule import FORCE
from apex_train.losses.compute import compute_training_losses
from apex_train.losses.ranking import rank_correlation
from apex_train.model.detector import ApexDetector, HeadOutputs, Outputs

CHUNK = 16  # forward passes at a time


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--dataset-type")
@click.option("--split", default="val", show_default=True)
@click.option("--size", default=512, show_default=True)
@click.option("--share", default=0.25, show_default=True, help="Tiles of the background.")
@click.option("--images", default=24, show_default=True, help="At most; those with objects, evenly spread.")
@click.option("--output", type=click.Path(path_type=Path))
def main(
    checkpoint: Path, data: Path, dataset_type: str | None, split: str, size: int, share: float, images: int, output: Path | None
) -> None:
    """Measure and print the correlations."""
    model, dataset = load_model(checkpoint), open_dataset(data, split, dataset_type)
    config = load_config(None, {"train.size": size, "train.crop": size, "model.tile": model.config.tile})
    full = [index for index in range(len(dataset)) if (~dataset.instances(index).crowd).any()]
    chosen = [full[int(i)] for i in np.linspace(0, len(full) - 1, min(images, len(full)))]
    rows = []
    for index in chosen:
        rows.append({"image": dataset.records[index].file_name} | correlations(model, dataset, index, config, share))
        click.echo("  ".join(f"{key} {value:.3f}" if isinstance(value, float) else str(value) for key, value in rows[-1].items()))
    means = {key: float(np.nanmean([row[key] for row in rows])) for key in ("router", "ceiling", "mean_brightness")}
    click.echo(f"mean: {means}; router over ceiling {means['router'] / means['ceiling']:.3f} (asked 0.7)")
    if output is not None:
        write_evidence(output, {"split": split, "size": size, "share": share, "means": means, "rows": rows})


@torch.inference_mode()
def correlations(model: ApexDetector, dataset, index: int, config: FitConfig, share: float) -> dict[str, float]:
    """Of one image: router with truth, truth with truth over another background, and a naive score with the truth."""
    batch = whole_pictures(dataset, range(index, index + 1), config)
    rows, cols = model.config.grid(*batch.images.shape[1:3])
    count = rows * cols
    tiles = max(1, int(share * count))
    first = model(batch.images, tiles, torch.zeros(1, count))
    router_choice = set(first.tile_ids[0].tolist())
    random_choice = set(np.random.default_rng(index).choice(count, tiles, replace=False).tolist())
    truth, other = (gains(model, batch, config, choice, count) for choice in (router_choice, random_choice))
    utilities = first.utilities[0].numpy()
    pixels = batch.images[0].float().mean(-1).unflatten(0, (rows, -1)).unflatten(2, (cols, -1)).mean((1, 3)).flatten().numpy()
    return {
        "router": _spearman(utilities, truth),
        "ceiling": _spearman(truth, other),
        "mean_brightness": _spearman(pixels, truth),
    }


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    return float(rank_correlation(torch.from_numpy(a)[None], torch.from_numpy(b)[None]))


def gains(model: ApexDetector, batch: Batch, config: FitConfig, background: set[int], count: int) -> np.ndarray:
    """float64 [N]: loss without tile i minus loss with it, the other tiles of ``background`` looked at."""
    whole = loss_with(model, batch, config, [background], count)[0]
    inside = sorted(background)
    outside = sorted(set(range(count)) - background)
    without = loss_with(model, batch, config, [background - {i} for i in inside], count) - whole
    added = whole - loss_with(model, batch, config, [background | {i} for i in outside], count)
    found = np.zeros(count)
    found[inside], found[outside] = without, added
    return found


def loss_with(model: ApexDetector, batch: Batch, config: FitConfig, choices: list[set[int]], count: int) -> np.ndarray:
    """The training loss of the one image of ``batch`` per set of tiles; all sets of one size."""
    losses = []
    for start in range(0, len(choices), CHUNK):
        part = choices[start : start + CHUNK]
        bonus = torch.full((len(part), count), -FORCE)
        for row, choice in zip(bonus, part, strict=True):
            row[list(choice)] = FORCE
        if not part[0]:
            raise ValueError("a background of one tile has no state without it")
        outputs = model(batch.images.expand(len(part), -1, -1, -1), len(part[0]), bonus)
        for i in range(len(part)):
            total, _ = compute_training_losses(_one(outputs, i), batch, config.loss)
            losses.append(float(total))
    return np.array(losses)


def _one(outputs: Outputs, i: int) -> Outputs:
    heads = HeadOutputs(**{name: value[i : i + 1] for name, value in vars(outputs.heads).items() if value is not None})
    rest = {name: getattr(outputs, name)[i : i + 1] for name in ("utilities", "tile_ids", "alpha")}
    return replace(outputs, heads=heads, **rest)


if __name__ == "__main__":
    main()
