"""Does the router know which tiles are worth a look: per image, Spearman's rank correlation of its utilities with the truth.

    python bench/router_oracle.py engines/nuclei-nano/checkpoint.pt ../shared/data/nuclei-dsb2018 --output FILE
    python bench/router_oracle.py runs/a/best.pt DIR --size 384x1280 --images 40

The truth of a tile is what the training loss loses by looking at it (``TileTruth``, exact): loss without it minus loss with
it, the other tiles as they are. Which others are looked at matters, so that the truth itself is known only up to its background:
the ceiling is the correlation of the truth over the router's own choice with the truth over a random choice of as many tiles.
Only tiles that show the image are compared; a share is one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import torch
from evidence import write_evidence
from measured import letterboxed, one_level, read_size, same_classes, spread, with_objects

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.data.open import open_dataset
from apex_runtime.evaluation.bootstrap import Interval
from apex_runtime.routing.budget import parse_budget
from apex_runtime.routing.grid import content_tiles
from apex_train.checkpoint import file_sha256, load_model
from apex_train.config import LossConfig
from apex_train.engine.tile_truth import TileTruth
from apex_train.losses.ranking import rank_correlation
from apex_train.model.detector import ApexDetector
from apex_train.model.info import model_info

RESAMPLES = 10_000
CORRELATIONS = ("router", "ceiling", "mean_brightness")


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--dataset-type")
@click.option("--split", default="val", show_default=True)
@click.option("--size", default="512", show_default=True, callback=read_size, help="One side, or HEIGHTxWIDTH.")
@click.option("--share", default=0.25, show_default=True, help="Of the image's tiles, which are the background.")
@click.option("--images", default=24, show_default=True, help="At most; those with objects, evenly spread.")
@click.option("--output", type=click.Path(path_type=Path))
def main(
    checkpoint: Path,
    data: Path,
    dataset_type: str | None,
    split: str,
    size: tuple[int, int],
    share: float,
    images: int,
    output: Path | None,
) -> None:
    """Measure and print the correlations."""
    model, dataset = one_level(load_model(checkpoint)), open_dataset(data, split, dataset_type)
    same_classes(model.config.classes, dataset)
    rows = []
    for index in spread(with_objects(dataset), images):
        rows.append({"image": dataset.records[index].file_name} | correlations(model, dataset, index, size, share))
        click.echo("  ".join(f"{key} {value:.3f}" if isinstance(value, float) else str(value) for key, value in rows[-1].items()))
    found = summary(rows)
    for name, interval in found.items():
        click.echo(f"{name:<20}{interval.value:7.3f}  ({interval.low:.3f} to {interval.high:.3f})")
    if output is not None:
        asked = {"split": split, "size": size, "share": share, "fingerprint": dataset.fingerprint()}
        intervals = {name: [interval.low, interval.value, interval.high] for name, interval in found.items()}
        write_evidence(output, {"checkpoint_sha256": file_sha256(checkpoint)} | asked | {"means": intervals, "rows": rows})


def correlations(
    model: ApexDetector, dataset: InstanceDataset, index: int, size: tuple[int, int], share: float
) -> dict[str, float]:
    """Of one image: router with truth, truth with truth over another background, and a naive score with the truth."""
    batch, box = letterboxed(dataset, index, size)
    content_N = content_tiles(box, model_info(model, *size).tiles)
    shown = np.flatnonzero(content_N)
    tiles = parse_budget(float(share)).tiles_for(len(shown), len(content_N), model_info(model, *size))
    truth = TileTruth(model, batch, LossConfig(), content_N)
    backgrounds = truth.router_choice(tiles), np.random.default_rng(index).choice(shown, tiles, replace=False).tolist()
    own, other = (truth.gains(background, shown.tolist())[shown] for background in backgrounds)
    rows, cols = truth.grid
    pixels = batch.images[0].float().mean(-1).unflatten(0, (rows, -1)).unflatten(2, (cols, -1)).mean((1, 3)).flatten().numpy()
    return {
        "router": spearman(truth.utilities[shown], own),
        "ceiling": spearman(own, other),
        "mean_brightness": spearman(pixels[shown], own),
    }


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation of two lists of numbers."""
    return float(rank_correlation(torch.from_numpy(a)[None], torch.from_numpy(b)[None]))


def summary(rows: Sequence[dict[str, float]], seed: int = 0) -> dict[str, Interval]:
    """The means over images, and the mean of the router over that of the ceiling, with 95 % intervals over resampled images.

    A ratio of means, for a single image's ceiling may be next to zero. Images where a correlation is undefined count in none.
    """
    table = np.array([[row[name] for name in CORRELATIONS] for row in rows])
    table = table[np.isfinite(table).all(1)]
    if not len(table):
        raise click.UsageError("no image has a defined correlation")
    drawn = np.random.default_rng(seed).integers(0, len(table), (RESAMPLES, len(table)))
    values, samples = table.mean(0), table[drawn].mean(1)
    found = {name: _interval(values[i], samples[:, i]) for i, name in enumerate(CORRELATIONS)}
    return found | {"router over ceiling": _interval(values[0] / values[1], samples[:, 0] / samples[:, 1])}


def _interval(value: float, drawn: np.ndarray) -> Interval:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(low), float(value), float(high))


if __name__ == "__main__":
    main()
