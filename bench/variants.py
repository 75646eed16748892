"""Networks that differ in one thing (levels of tiles, their side, halo, widths, schedule), compared at equal milliseconds.

    python bench/variants.py one-level=runs/a/best.pt two-levels=runs/b/best.pt --data DIR --size 384x1280 --output FILE

Every network is exported and measured at the same shares of its tiles, all of them timed in turn within every round. Its accuracy
at other times is taken from the line between its neighbours. Rows compare with the first network at the times of that one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from evidence import write_evidence
from frontier_speed import subject
from measured import kinds_of, read_size, same_classes

from apex_runtime.backends.ort import OrtSession
from apex_runtime.benchmark.turns import measure
from apex_runtime.cli.options import split_list
from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.data.open import open_dataset
from apex_runtime.evaluation.bootstrap import Matches, average_precision, matches_of
from apex_runtime.evaluation.coco_ap import detection_limit, predict_results
from apex_runtime.evaluation.coco_matching import run_coco_eval
from apex_runtime.frontier.figures import resamples
from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.routing.budget import parse_budget
from apex_runtime.routing.split import plan_tiles
from apex_train.checkpoint import file_sha256, load_model
from apex_train.export.exporter import export_onnx

FIGURES = ("AP50", "AP")


@dataclass(frozen=True, eq=False)
class Variant:
    """One network: its session, and what it found per budget."""

    name: str
    session: OrtSession
    matches: dict[str, Matches]


@click.command()
@click.argument("variants", nargs=-1, required=True, metavar="NAME=CHECKPOINT...")
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--split", default="test", show_default=True)
@click.option("--size", default="512", show_default=True, callback=read_size)
@click.option("--budget", "budgets", multiple=True, default=("0.0625,0.125,0.25,0.5,0.75,1.0",), callback=split_list)
@click.option("--threads", default=1, show_default=True)
@click.option("--rounds", default=9, show_default=True)
@click.option("--output", type=click.Path(path_type=Path))
def main(
    variants: tuple[str, ...],
    data: Path,
    split: str,
    size: tuple[int, int],
    budgets: tuple[str, ...],
    threads: int,
    rounds: int,
    output: Path | None,
) -> None:
    """Measure the networks and print how they compare."""
    dataset = open_dataset(data, split)
    paths = {name: Path(path) for name, path in (variant.split("=", 1) for variant in variants)}
    found = [_variant(name, path, dataset, size, budgets, threads) for name, path in paths.items()]
    samples = measure(_subjects(found, budgets), rounds, 2)
    rows = _rows(found, budgets, {name: float(np.median(values)) for name, values in samples.items()}, len(dataset))
    for row in rows:
        click.echo("  ".join(f"{key} {value}" for key, value in row.items()))
    if output is not None:
        hashes = {name: file_sha256(path) for name, path in paths.items()}
        asked = {"split": split, "size": size, "threads": threads, "rounds": rounds, "fingerprint": dataset.fingerprint()}
        write_evidence(output, {"checkpoints": hashes} | asked | {"rows": rows, "samples_ms": samples})


def _variant(
    name: str, path: Path, dataset: InstanceDataset, size: tuple[int, int], budgets: Sequence[str], threads: int
) -> Variant:
    model = load_model(path)
    same_classes(model.config.classes, dataset)
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(model, size, Path(folder) / "model.onnx")
        session = OrtSession(Path(folder) / "model.onnx", threads)
    truth = dataset.ground_truth()
    kind, limit = kinds_of(truth)[-1], detection_limit(truth)
    matches = {}
    for budget in budgets:
        results = predict_results(Predictor(session), dataset, budget, max_detections=limit, batch=1)
        matches[budget] = matches_of(run_coco_eval(truth, results, kind, limit))
        click.echo(f"{name}, {budget}")
    return Variant(name, session, matches)


def _subjects(found: Sequence[Variant], budgets: Sequence[str]) -> dict[str, Any]:
    """A call of every graph at every budget."""
    subjects = {}
    for variant in found:
        info = variant.session.info
        for budget in budgets:
            tiles = plan_tiles(parse_budget(budget), np.ones(info.tiles.count, bool), info)
            subjects[f"{variant.name} {budget}"] = subject(variant.session, tiles)
    return subjects


def _rows(found: Sequence[Variant], budgets: Sequence[str], ms: dict[str, float], images: int) -> list[dict[str, Any]]:
    counts = resamples(images, 1000)
    first = found[0]
    curves = {variant.name: {budget: _figures(variant.matches[budget], counts) for budget in budgets} for variant in found}
    rows: list[dict[str, Any]] = []
    for variant in found:
        times = [ms[f"{variant.name} {budget}"] for budget in budgets]
        for budget in budgets:
            at = ms[f"{first.name} {budget}"]
            row: dict[str, Any] = {"who": variant.name, "budget": budget, "ms": round(ms[f"{variant.name} {budget}"], 2)}
            for number, figure in enumerate(FIGURES):
                own = np.stack([curves[variant.name][each][:, number] for each in budgets])
                row[figure] = _spread(own[budgets.index(budget)])
                if variant is not first and times[0] <= at <= times[-1]:
                    here = np.stack([np.interp(at, times, column) for column in own.T])
                    row[f"{figure}_minus_first_at_{at:.0f}ms"] = _spread(here - curves[first.name][budget][:, number])
            rows.append(row)
    return rows


def _figures(matches: Matches, counts_RI: np.ndarray) -> np.ndarray:
    """float [R,2]: AP50 and AP of every resample, the first of all images once."""
    precision_RT = np.array([average_precision(matches, counts) for counts in counts_RI])
    half = np.isclose(matches.thresholds, 0.5)
    return np.stack([precision_RT[:, half][:, 0], precision_RT.mean(1)], axis=1)


def _spread(values_R: np.ndarray) -> list[float]:
    low, high = np.nanquantile(values_R[1:], [0.025, 0.975])
    return [round(float(value), 4) for value in (low, values_R[0], high)]


if __name__ == "__main__":
    main()
