r"""Do rounds of self-training make up for labels? A tenth of them, the same steps, several seeds.

    python bench/little_labels.py run ../shared/data/nuclei-dsb2018 --output runs/little --epochs 200 --rounds 2 --seeds 0,1,2 \
        --set train.size=256 --set train.crop=128 --set train.batch=16 --threads 1 \
        -- --min-score 0.3 --min-stability 0.3 --views none
    python bench/little_labels.py score ../shared/data/nuclei-dsb2018 --output runs/little --evidence FILE

A seed draws the labelled images and the weights. ``self`` is ``apex-train self-train`` with the other training images as those
without labels (their truth only tells how right the pseudo labels are; words after ``--`` are for it); ``supervised`` is
``apex-train fit`` on the labelled images alone, with as many steps, and further ones for the seconds that the labelling took.
There is no val: the last weights answer, once, for all test images, with all tiles. What is finished is kept: the same command
goes on.
"""

from __future__ import annotations

import json
import math
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

from apex_runtime.data.open import open_dataset

ARMS = ("supervised", "self")


@click.group()
def main() -> None:
    """Train both arms, score their answers."""


@main.command()
@run_options
@click.option("--share", type=click.FloatRange(0, 1, min_open=True), default=0.1, show_default=True, help="Of the labels.")
@click.option("--epochs", default=200, show_default=True, help="Of round 0, over the labelled images.")
@click.option("--rounds", default=2, show_default=True, help="With pseudo labels.")
def run(data: Path, output: Path, seeds: tuple[int, ...], **options: Any) -> None:
    """Train and answer what is missing, seed by seed."""
    keep_settings(output, plain(options))
    dataset = open_dataset(data, "test", "coco")
    for seed in seeds:
        folder = output / str(seed)
        if not (folder / "self.json").is_file():
            sizes = _write_few(data, folder / "few", options["share"], seed)
            facts = _self_train(folder, seed, options)
            results = answer(folder / "self" / "best.pt", folder / "self" / "round-0", dataset)
            write_cell(folder / "self.json", facts | {"labelled": sizes, "results": results})
        if not (folder / "supervised.json").is_file():
            spent = json.loads((folder / "self.json").read_text())
            facts = _supervised(folder, seed, options, spent)
            results = answer(folder / "supervised" / "last.pt", folder / "supervised", dataset)
            write_cell(folder / "supervised.json", facts | {"labelled": spent["labelled"], "results": results})


def _write_few(data: Path, folder: Path, share: float, seed: int) -> dict[str, int]:
    """A data set of the splits train, with labels, and rest."""
    document = read_train(data)
    chosen = drawn_ids(document, share, seed)
    write_part(data, folder, "rest", document, {image["id"] for image in document["images"]} - chosen)
    return write_part(data, folder, "train", document, chosen)


def _self_train(folder: Path, seed: int, options: dict[str, Any]) -> dict[str, Any]:
    few, run = folder / "few", folder / "self"
    sizes = ["--epochs", options["epochs"], "--rounds", options["rounds"]]
    words = ["--data", few, "--unlabelled", few, "--unlabelled-split", "rest", "--output", run, *sizes, *words_of(seed, options)]
    apex_train("self-train", *words, *options["more"], resume_if=run / "plan.json")
    rounds = json.loads((run / "report.json").read_text())["rounds"]
    labelling = [entry["labelling"] for entry in rounds if entry["labelling"] is not None]
    return {
        "steps": sum(entry["steps"] for entry in rounds),
        "seconds": round(sum(entry["seconds"] for entry in rounds), 1),
        "labelling_seconds": round(sum(entry["seconds"] for entry in labelling), 1),
        "pseudo_labels": [{name: entry[name] for name in ("labels", "unsure", "precision", "recall")} for entry in labelling],
    }


def _supervised(folder: Path, seed: int, options: dict[str, Any], spent: dict[str, Any]) -> dict[str, Any]:
    """As many steps as the rounds had, more by what the labelling cost in their seconds, rounded up to whole epochs."""
    run = folder / "supervised"
    per_epoch = _steps_of_round_0(folder) / options["epochs"]
    steps = spent["steps"] * (1 + spent["labelling_seconds"] / max(spent["seconds"], 1e-9))
    epochs = math.ceil(steps / per_epoch)
    words = ["--data", folder / "few", "--output", run, "--epochs", epochs, *words_of(seed, options)]
    apex_train("fit", *words, resume_if=run / "last.pt")
    return dict(trained(run))


def _steps_of_round_0(folder: Path) -> int:
    return int(json.loads((folder / "self" / "report.json").read_text())["rounds"][0]["steps"])


main.add_command(score_command(ARMS))


if __name__ == "__main__":
    main()
