r"""Is it worth choosing what to learn from? The hardest 30 % of the training images against a random 30 %, several seeds.

    python bench/mined_subset.py run ../shared/data/nuclei-dsb2018 --output runs/mined --epochs 30 --seeds 0,1,2 \
        --set train.size=256 --set train.crop=128 --set train.batch=16 --threads 1
    python bench/mined_subset.py score ../shared/data/nuclei-dsb2018 --output runs/mined --evidence FILE

A seed draws a tenth of the images, on which a first network is trained; ``apex-train mine`` ranks all training images by it.
Both arms then train anew on as many images, with as many steps: ``mined`` on the hardest, ``random`` on a random part. The last
weights answer, once, for all test images, with all tiles. What the choice costs (the first network, the looks, the objects that
somebody would have to outline) is counted. What is finished is kept: the same command goes on.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
from arms import (
    answer,
    apex_train,
    drawn_ids,
    keep_settings,
    plain,
    read_train,
    run_options,
    score_command,
    trained,
    words_of,
    write_cell,
    write_part,
)

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.data.open import open_dataset
from apex_train.config import load_config

ARMS = ("random", "mined")


@click.group()
def main() -> None:
    """Train both arms, score their answers."""


@main.command()
@run_options
@click.option("--first-share", type=click.FloatRange(0, 1, min_open=True), default=0.1, show_default=True, help="Of the images.")
@click.option("--share", type=click.FloatRange(0, 1, min_open=True), default=0.3, show_default=True, help="That both arms get.")
@click.option("--first-epochs", default=60, show_default=True)
@click.option("--epochs", default=30, show_default=True)
def run(data: Path, output: Path, seeds: tuple[int, ...], **options: Any) -> None:
    """Train and answer what is missing, seed by seed; words after ``--`` are for apex-train mine."""
    keep_settings(output, plain(options))
    dataset = open_dataset(data, "test", "coco")
    document = read_train(data)
    for seed in seeds:
        folder = output / str(seed)
        cost = _mine(data, document, folder, seed, options)
        subset = json.loads((folder / "hard" / "subset.json").read_text())
        hardest = {image["id"] for image in subset["images"]}
        _arm(data, document, folder, "mined", hardest, seed, options, dataset, cost)
        _arm(data, document, folder, "random", drawn_ids(document, options["share"], seed + 1000), seed, options, dataset, {})


def _mine(data: Path, document: dict[str, Any], folder: Path, seed: int, options: dict[str, Any]) -> dict[str, Any]:
    """The first network and its ranking; what they cost."""
    first, run, done = folder / "first", folder / "first-run", folder / "cost.json"
    if done.is_file():
        cost: dict[str, Any] = json.loads(done.read_text())
        return cost
    sizes = write_part(data, first, "train", document, drawn_ids(document, options["first_share"], seed))
    words = ["--data", first, "--output", run, "--epochs", options["first_epochs"], *words_of(seed, options)]
    apex_train("fit", *words, resume_if=run / "last.pt")
    height, width = load_config(run / "config.yaml", {}).train.letterbox
    started = time.perf_counter()
    looks = ["--data", data, "--dataset-type", "coco", "--size", f"{height}x{width}", "--share", options["share"], "--draw", 0]
    apex_train("mine", run / "last.pt", *looks, "--threads", options["threads"], "-o", folder / "hard", *options["more"])
    cost = {"first": sizes | trained(run), "mining_seconds": round(time.perf_counter() - started, 1)}
    done.write_text(json.dumps(cost))
    return cost


def _arm(
    data: Path,
    document: dict[str, Any],
    folder: Path,
    name: str,
    image_ids: set[int],
    seed: int,
    options: dict[str, Any],
    dataset: InstanceDataset,
    cost: dict[str, Any],
) -> None:
    """Train on these images, answer, and keep the cell, unless it is there."""
    cell, part, run = folder / f"{name}.json", folder / name, folder / f"{name}-run"
    if cell.is_file():
        return
    sizes = write_part(data, part, "train", document, image_ids)
    words = ["--data", part, "--output", run, "--epochs", options["epochs"], *words_of(seed, options)]
    apex_train("fit", *words, resume_if=run / "last.pt")
    results = answer(run / "last.pt", run, dataset)
    write_cell(cell, sizes | trained(run) | {"cost": cost, "results": results})


main.add_command(score_command(ARMS))


if __name__ == "__main__":
    main()
