"""Two ways to train, by seeds in pairs: parts of a data set, the programs that train, answers that are kept, their difference.

A cell is a file ``<folder>/<seed>/<arm>.json``, written when the arm has answered for the test images: what was stopped goes on.
Legend: S seeds, R resamples.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from evidence import write_evidence

from apex_runtime.cli.options import split_integers
from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.data.open import open_dataset
from apex_runtime.evaluation.bootstrap import Matches, average_precision, matches_of
from apex_runtime.evaluation.coco_ap import detection_limit, predict_results
from apex_runtime.evaluation.coco_matching import run_coco_eval
from apex_runtime.files import write_atomically
from apex_runtime.pipeline.predictor import Predictor
from apex_train.ablation.statistics import student_interval
from apex_train.checkpoint import load_model
from apex_train.config import load_config
from apex_train.predictor import TorchSession

RESAMPLES = 1000
_FOLDER = click.Path(path_type=Path)
_EXISTING = click.Path(exists=True, path_type=Path)
_RUN = (
    click.argument("data", type=_EXISTING),
    click.option("--output", required=True, type=_FOLDER, help="A folder per seed, and the settings."),
    click.option("--seeds", multiple=True, default=("0,1,2",), callback=split_integers, show_default=True),
    click.option("--set", "assignments", multiple=True, help="Of the configuration, for all trainings."),
    click.option("--threads", default=1, show_default=True),
    click.argument("more", nargs=-1, type=click.UNPROCESSED),
)


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """What every program of two arms is told to run them."""
    for option in reversed(_RUN):
        command = option(command)
    return command


def score_command(arms: tuple[str, str]) -> click.Command:
    """The command ``score`` of a program with these arms."""

    @click.command()
    @click.argument("data", type=_EXISTING)
    @click.option("--output", required=True, type=_EXISTING, help="As of run.")
    @click.option("--evidence", required=True, type=_FOLDER)
    def score(data: Path, output: Path, evidence: Path) -> None:
        """Mask AP of both arms, and the difference with its intervals, over the seeds of which both cells are there."""
        _write_scores(data, output, arms, evidence)

    return score


def apex_train(*words: object, resume_if: Path | None = None) -> None:
    """The program as its user starts it, to its end; with --resume where the file is there. Raises CalledProcessError."""
    more = ["--resume"] if resume_if is not None and resume_if.exists() else []
    subprocess.run([sys.executable, "-m", "apex_train.cli.main", *map(str, words), *more], check=True)


def write_part(data: Path, folder: Path, split: str, document: dict[str, Any], image_ids: set[int]) -> dict[str, int]:
    """Write some images of a COCO document of ``data`` as a split of the set ``folder``; how many images and objects it has."""
    images = [image for image in document["images"] if image["id"] in image_ids]
    objects = [entry for entry in document["annotations"] if entry["image_id"] in image_ids]
    part = {"images": images, "annotations": objects, "categories": document["categories"]}
    write_atomically(folder / "annotations" / f"{split}.json", json.dumps(part).encode())
    link = folder / "images"
    if not link.is_symlink():
        link.symlink_to((data / "images").resolve())
    return {"images": len(images), "objects": len(objects)}


def read_train(data: Path) -> dict[str, Any]:
    """The annotations of the training split of a COCO set."""
    document: dict[str, Any] = json.loads((data / "annotations" / "train.json").read_text(encoding="utf-8"))
    return document


def drawn_ids(document: dict[str, Any], share: float, seed: int) -> set[int]:
    """The ids of a random share of the images, at least one."""
    ids = sorted(image["id"] for image in document["images"])
    count = max(1, round(share * len(ids)))
    return set(np.random.default_rng(seed).choice(ids, count, replace=False).tolist())


def keep_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Write what the cells of a folder depend on. Raises UsageError when those that are there depend on something else."""
    file = folder / "settings.json"
    if file.exists() and json.loads(file.read_text()) != settings:
        raise click.UsageError(f"{file} has other settings: choose another --output.")
    write_atomically(file, json.dumps(settings, indent=2).encode())


def plain(options: dict[str, Any]) -> dict[str, Any]:
    """Options as JSON has them."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}


def words_of(seed: int, options: dict[str, Any]) -> list[object]:
    """The words that every training of a seed gets: --set of ``assignments``, the seed, the layout, ``threads``."""
    sets = [word for text in (*options["assignments"], f"train.seed={seed}") for word in ("--set", text)]
    return [*sets, "--dataset-type", "coco", "--threads", options["threads"]]


def trained(run: Path) -> dict[str, float]:
    """Steps and seconds of a training, by its log."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {"steps": lines[-1]["step"], "seconds": round(sum(line["seconds"] for line in lines), 1)}


def answer(checkpoint: Path, run: Path, dataset: InstanceDataset) -> list[dict[str, Any]]:
    """COCO results of a checkpoint, with all tiles, at the size that its run was trained at."""
    size = load_config(run / "config.yaml", {}).train.letterbox
    predictor = Predictor(TorchSession(load_model(checkpoint), *size))
    return predict_results(predictor, dataset, 1.0, max_detections=detection_limit(dataset.ground_truth()))


def write_cell(path: Path, content: dict[str, Any]) -> None:
    """Keep a cell."""
    write_atomically(path, json.dumps(content).encode(), durable=True)
    shown = {name: value for name, value in content.items() if name != "results"}
    click.echo(f"{path}: {json.dumps(shown)}", err=True)


def compare(folder: Path, seeds: Sequence[int], arms: tuple[str, str], dataset: InstanceDataset) -> dict[str, Any]:
    """Mask AP of both arms by seed, and the second minus the first, in points.

    The interval over seeds is Student's (the images are what they are), that over images a paired bootstrap of the mean of these
    seeds, that over both draws seeds and images: with three seeds it is too narrow, so Student's stands beside it.
    """
    cells = {arm: [json.loads((folder / str(seed) / f"{arm}.json").read_text()) for seed in seeds] for arm in arms}
    first, second = ([_matches(dataset, cell["results"]) for cell in cells[arm]] for arm in arms)
    images = len(dataset)
    counts_RI = np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), size=RESAMPLES)
    drawn_RS = np.array([_differences(first, second, counts_I) for counts_I in counts_RI])
    differences_S = _differences(first, second, np.ones(images, np.int64))
    picked_RS = np.random.default_rng(1).integers(0, len(seeds), drawn_RS.shape)
    both_R = np.take_along_axis(drawn_RS, picked_RS, axis=1).mean(axis=1)
    return {
        "arms": {
            arm: [{"seed": seed} | _row(cell, dataset) for seed, cell in zip(seeds, cells[arm], strict=True)] for arm in arms
        },
        "difference": {
            "second_minus_first": list(reversed(arms)),
            "by_seed": _points(differences_S),
            "mean": _points(differences_S.mean())[0],
            "over_seeds": _points(student_interval(differences_S)) if len(seeds) > 1 else None,
            "over_images": _points(np.quantile(drawn_RS.mean(axis=1), [0.025, 0.975])),
            "over_both": _points(np.quantile(both_R, [0.025, 0.975])),
        },
        "test_images": images,
    }


def _write_scores(data: Path, folder: Path, arms: tuple[str, str], evidence: Path) -> None:
    """Compare the arms over the seeds of which both cells are there, on the split test, and write it as evidence."""
    seeds = sorted(
        int(file.parent.name) for file in folder.glob(f"*/{arms[0]}.json") if (file.parent / f"{arms[1]}.json").is_file()
    )
    if not seeds:
        raise click.UsageError(f"{folder}: no seed has both cells ({', '.join(arms)}).")
    found = compare(folder, seeds, arms, open_dataset(data, "test", "coco"))
    write_evidence(evidence, {"settings": json.loads((folder / "settings.json").read_text())} | found)
    click.echo(json.dumps(found["difference"], indent=2))


def _matches(dataset: InstanceDataset, results: list[dict[str, Any]]) -> Matches:
    truth = dataset.ground_truth()
    return matches_of(run_coco_eval(truth, results, "segm", detection_limit(truth)))


def _differences(first: Sequence[Matches], second: Sequence[Matches], counts_I: np.ndarray) -> np.ndarray:
    """float64 [S]: mask AP of the second minus that of the first, image i counted ``counts_I[i]`` times."""
    scores = [[average_precision(matches, counts_I).mean() for matches in arm] for arm in (first, second)]
    return np.subtract(scores[1], scores[0])


def _row(cell: dict[str, Any], dataset: InstanceDataset) -> dict[str, Any]:
    matches = _matches(dataset, cell["results"])
    value = average_precision(matches, np.ones(len(dataset), np.int64)).mean()
    return {"mAP_segm": _points(value)[0]} | {name: kept for name, kept in cell.items() if name != "results"}


def _points(values: Any) -> list[float]:
    return [round(100 * float(value), 2) for value in np.atleast_1d(values)]
