r"""Cross-validation: networks trained on all groups of images but one answer for that one; all answers are scored together.

    python bench/folds.py make DATA --pattern '-(\d+)-19' --groups 220241,220242 --leave-out 220247 --output folds/
    python bench/folds.py fit folds/ --recipe FIT.yaml --size 512 --output runs/folds
    python bench/yolo_seg.py folds/ --program OTHER/bin/yolo --epochs 20 --size 512 --output runs/yolo
    python bench/folds.py score folds/ --results ours=runs/folds --results yolo=runs/yolo --output FILE

A fold is a COCO data set of two splits (and the same as YOLO text, for others to read). A folder of results holds
``<group>.json``: ``{"cpu_seconds": ..., "results": {budget: [COCO results]}}``.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from baselines.answers import LIMIT
from baselines.budget import cpu_seconds
from evidence import write_evidence
from measured import read_size
from yolo_text import write_description
from yolo_text import write_split as write_split_as_text

from apex_runtime.data.open import open_dataset
from apex_runtime.evaluation.bootstrap import Matches, bootstrap_interval, matches_of, paired_bootstrap
from apex_runtime.evaluation.coco_ap import predict_results
from apex_runtime.evaluation.coco_matching import run_coco_eval
from apex_runtime.files import write_atomically
from apex_runtime.pipeline.predictor import Predictor
from apex_train.checkpoint import load_model
from apex_train.predictor import TorchSession


@click.group()
def main() -> None:
    """Make folds, train on them, score the answers."""


@main.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--pattern", required=True, help="Its first group, searched for in the file name, is the group of an image.")
@click.option("--groups", required=True, help="Comma list: every one is the test part of a fold.")
@click.option("--leave-out", default="", help="Comma list of groups that no fold sees.")
@click.option("--output", required=True, type=click.Path(path_type=Path))
def make(data: Path, pattern: str, groups: str, leave_out: str, output: Path) -> None:
    """Write a fold per group: its images are ``test``, all others are ``train``."""
    document = _all_splits(data)
    for group in groups.split(","):
        where = {image["id"]: re.search(pattern, image["file_name"])[1] for image in document["images"]}  # type: ignore[index]
        kept = {identity for identity, its in where.items() if its not in leave_out.split(",")}
        folder = output / group
        (folder / "annotations").mkdir(parents=True, exist_ok=True)
        link = folder / "images"
        if not link.is_symlink():
            link.symlink_to((data / "images").resolve())
        for split, wanted in (
            ("test", {i for i in kept if where[i] == group}),
            ("train", {i for i in kept if where[i] != group}),
        ):
            _write_split(folder, split, document, wanted)
        names = [category["name"] for category in document["categories"]]
        write_description(folder / "yolo", "train", "test", names, str((folder / "yolo").resolve()))
        click.echo(f"{group}: {len([i for i in kept if where[i] == group])} test images of {len(kept)}")


def _all_splits(data: Path) -> dict[str, Any]:
    """The annotations of all splits as one document, images and annotations numbered anew."""
    merged: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    for path in sorted((data / "annotations").glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        moved = {image["id"]: number for number, image in enumerate(document["images"], len(merged["images"]) + 1)}
        merged["images"] += [image | {"id": moved[image["id"]]} for image in document["images"]]
        merged["annotations"] += [entry | {"image_id": moved[entry["image_id"]]} for entry in document["annotations"]]
        merged["categories"] = document["categories"]
    merged["annotations"] = [entry | {"id": number} for number, entry in enumerate(merged["annotations"], 1)]
    return merged


def _write_split(folder: Path, split: str, document: dict[str, Any], wanted: set[int]) -> None:
    images = [image for image in document["images"] if image["id"] in wanted]
    annotations = [entry for entry in document["annotations"] if entry["image_id"] in wanted]
    part = {"images": images, "annotations": annotations, "categories": document["categories"]}
    (folder / "annotations" / f"{split}.json").write_text(json.dumps(part))
    write_split_as_text(folder / "yolo" / split, open_dataset(folder, split))


@main.command()
@click.argument("folds", type=click.Path(exists=True, path_type=Path))
@click.option("--recipe", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--size", default="512", show_default=True, callback=read_size)
@click.option("--budget", "budgets", multiple=True, default=("0.25", "0.5", "1.0"), show_default=True)
@click.option("--output", required=True, type=click.Path(path_type=Path))
def fit(folds: Path, recipe: Path, size: tuple[int, int], budgets: tuple[str, ...], output: Path) -> None:
    """Train on every fold that has no results yet, and answer for its test images with the last weights."""
    for fold in sorted(folds.iterdir()):
        proof = output / f"{fold.name}.json"
        if proof.is_file():
            continue
        before = cpu_seconds()
        command = [str(Path(sys.executable).parent / "apex-train"), "fit", str(recipe), "--data", str(fold)]
        subprocess.run([*command, "--output", str(output / fold.name)], check=True)
        spent = cpu_seconds() - before
        dataset = open_dataset(fold, "test")
        predictor = Predictor(TorchSession(load_model(output / fold.name / "last.pt"), *size))
        answers = {budget: predict_results(predictor, dataset, budget, max_detections=LIMIT) for budget in budgets}
        write_atomically(proof, json.dumps({"cpu_seconds": spent, "results": answers}).encode())
        click.echo(f"{fold.name}: {spent / 60:.1f} minutes of one processor")


@main.command()
@click.argument("folds", type=click.Path(exists=True, path_type=Path))
@click.option("--results", "folders", multiple=True, required=True, help="NAME=FOLDER; the first is compared with the others.")
@click.option("--output", type=click.Path(path_type=Path))
def score(folds: Path, folders: tuple[str, ...], output: Path | None) -> None:
    """Mask AP50 and AP of all test images together, with intervals over images, and the differences to the first."""
    truth = _truth(folds)
    rows: list[dict[str, Any]] = []
    found: dict[str, Matches] = {}
    for name, folder in (entry.split("=", 1) for entry in folders):
        answers = [json.loads((Path(folder) / f"{fold.name}.json").read_text()) for fold in sorted(folds.iterdir())]
        seconds = sum(answer["cpu_seconds"] for answer in answers)
        for budget in answers[0]["results"]:
            results = list(itertools.chain.from_iterable(answer["results"][budget] for answer in answers))
            matches = matches_of(run_coco_eval(truth, results, "segm", LIMIT))
            found[f"{name} {budget}"] = matches
            rows.append({"who": name, "budget": budget, "cpu_minutes": seconds / 60} | _figures(matches, found.values()))
            click.echo(json.dumps(rows[-1]))
    if output is not None:
        write_evidence(output, {"images": len(truth["images"]), "objects": len(truth["annotations"]), "rows": rows})


def _truth(folds: Path) -> dict[str, Any]:
    parts = [open_dataset(fold, "test").ground_truth() for fold in sorted(folds.iterdir())]
    annotations = list(itertools.chain.from_iterable(part["annotations"] for part in parts))
    numbered = [entry | {"id": number} for number, entry in enumerate(annotations, 1)]
    return parts[0] | {"images": [image for part in parts for image in part["images"]], "annotations": numbered}


def _figures(matches: Matches, found: Iterable[Matches]) -> dict[str, Any]:
    first = next(iter(found))
    figures: dict[str, Any] = {}
    for figure in ("AP50", "mAP"):
        own, against = bootstrap_interval(matches, figure), paired_bootstrap(first, matches, figure)
        figures[figure] = [own.low, own.value, own.high]
        figures[f"{figure}_minus_first"] = [against.low, against.value, against.high]
    return figures


if __name__ == "__main__":
    main()
