"""A YOLO11n-seg on the folds of ``folds.py``, from random weights: a yardstick, trained by the separate program that it is.

    python bench/yolo_seg.py folds/ --program OTHER/bin/yolo --epochs 20 --size 512 --output runs/yolo

OTHER is an environment of its own with ultralytics; ``baselines/yolo-seg.yaml`` has what differs from its defaults. Its export
answers for the test images.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
from baselines.answers import answers_of
from baselines.trained import Task
from baselines.yolo import exported, fit

from apex_runtime.data.open import open_dataset
from apex_runtime.files import write_atomically


@click.command()
@click.argument("folds", type=click.Path(exists=True, path_type=Path))
@click.option("--program", required=True, type=click.Path(exists=True, path_type=Path), help="yolo of the other environment.")
@click.option("--epochs", required=True, type=int)
@click.option("--size", default=512, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--output", required=True, type=click.Path(path_type=Path))
def main(folds: Path, program: Path, epochs: int, size: int, threads: int, output: Path) -> None:
    """Train on every fold that has no results yet, and answer for its test images with the last weights."""
    for fold in sorted(folds.iterdir()):
        proof, folder = output / f"{fold.name}.json", output / fold.name
        if proof.is_file():
            continue
        task, test = Task(fold, folder, 0.0, size, 0, threads), open_dataset(fold, "test")
        seconds = fit(program, fold / "yolo" / "data.yaml", task, epochs, folder / "fit")
        detector = exported(program, folder / "fit", task, [category.name for category in test.categories])
        (answer,) = answers_of(detector, test, threads, ())
        write_atomically(proof, json.dumps({"cpu_seconds": seconds, "results": {"all": answer.results}}).encode())
        click.echo(f"{fold.name}: {seconds / 60:.1f} minutes of one processor")


if __name__ == "__main__":
    main()
