"""Rows of a comparison: what may stand together, and figures with intervals over images and, of several seeds, over seeds.

Legend: R resamples (the images as they are come first), S seeds. In every resample all rows count the same images equally often,
so differences are paired; each row draws its seeds for itself, with replacement.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from apex_runtime.evaluation.bootstrap import matches_of
from apex_runtime.evaluation.coco_matching import run_coco_eval
from apex_runtime.fairness.contract import Contract, differences
from apex_runtime.fairness.rows import Row
from apex_runtime.fairness.tabulate import as_json, tables
from apex_runtime.frontier.choices import Line
from apex_runtime.frontier.figures import as_json as interval_as_json
from apex_runtime.frontier.figures import interval, sampled
from baselines.answers import Answer

KINDS = ("segm", "bbox")
OF_THE_DETECTOR = ("image_policy", "postprocessing")  # what belongs to a detector may differ
OF_A_SEED = {"seed", "cpu_seconds", "model", "circumstances", "answers", "epochs", "steps"}  # what may differ within a row


@dataclass(frozen=True, eq=False)
class Run:
    """One answer of one seed: the name of its row, ``run.json``, and the answer."""

    name: str
    facts: dict[str, Any] = field(repr=False)
    answer: Answer = field(repr=False)

    @property
    def contract(self) -> Contract:
        """The terms of the answer."""
        return self.answer.contract

    @property
    def training(self) -> dict[str, Any]:
        """The terms of the training."""
        return self.facts["training"]


def refusals(runs: list[Run], data_sha256: str, tolerance: float) -> list[str]:
    """Why these runs are not one table, a line each; empty when they are."""
    rows = [Row(f"{run.name} seed {run.facts['seed']}", "", run.contract, {}) for run in runs]
    made = as_json(tables(rows, OF_THE_DETECTOR), OF_THE_DETECTOR)["tables"]
    said = [
        f"{table['rows'][0]['source']}: {name} {pair[1]}, not {pair[0]}"
        for table in made
        for name, pair in table["differences"].items()
    ]
    first = runs[0]
    for run in runs:
        who, limit = f"{run.name} seed {run.facts['seed']}", run.training["limit_seconds"]
        both = zip(run.training.items(), first.training.values(), strict=True)
        said += [f"{who}: training {name} {value}, not {other}" for (name, value), other in both if value != other]
        if abs(run.facts["cpu_seconds"] - limit) > tolerance * limit:
            said.append(f"{who}: {run.facts['cpu_seconds'] / 60:.2f} minutes, not within {tolerance:.0%} of {limit / 60:g}")
    if first.contract.data != data_sha256:
        said.append("--data: not the images that the runs have answered for")
    said += [line for group in grouped(runs).values() for run in group[1:] for line in _unlike(run, group[0])]
    twice = [who for who in {row.source for row in rows} if sum(row.source == who for row in rows) > 1]
    return said + [f"{who}: given twice" for who in sorted(twice)]


def _unlike(run: Run, first: Run) -> list[str]:
    """In what a run is not another seed of ``first``, a line each."""
    one, two = ({k: v for k, v in each.facts.items() if k not in OF_A_SEED} for each in (run, first))
    changed = {name: (one.get(name), two.get(name)) for name in sorted(one | two) if one.get(name) != two.get(name)}
    changed |= differences(run.contract, first.contract)
    return [f"{run.name} seed {run.facts['seed']}: {name} {pair[0]}, not {pair[1]}" for name, pair in changed.items()]


def grouped(runs: list[Run]) -> dict[str, list[Run]]:
    """The seeds of every row, in the order in which rows first appear."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.name, []).append(run)
    return found


def figures_of(run: Run, truth: dict[str, Any], limit: int, counts_RI: np.ndarray) -> dict[str, np.ndarray]:
    """AP and AP50 of masks and boxes, float64 [R+1] each."""
    results, line = run.answer.results, Line(run.name)
    matches = {kind: matches_of(run_coco_eval(truth, results, kind, limit)) for kind in KINDS}
    return sampled({line: matches}, counts_RI)[line]


def over_seeds(values_SR: np.ndarray, row: int) -> np.ndarray:
    """The mean over seeds, float64 [R+1]: all of them first, then as many drawn with replacement. ``row`` seeds the draws."""
    seeds, count = values_SR.shape
    drawn = np.random.default_rng([1, row]).integers(0, seeds, (seeds, count))
    drawn[:, 0] = np.arange(seeds)
    return np.take_along_axis(values_SR, drawn, 0).mean(0)


def rows(
    groups: dict[str, list[Run]], figures: dict[Run, dict[str, np.ndarray]], against: str, times: dict[tuple[str, str], float]
) -> list[dict[str, Any]]:
    """The table; ``minus``: each figure less that of ``against``."""
    means = {
        name: {figure: over_seeds(np.stack([figures[run][figure] for run in runs]), place) for figure in figures[runs[0]]}
        for place, (name, runs) in enumerate(groups.items())
    }
    return [
        _row(name, runs, means[name], means[against] if name != against else {}, figures, times) for name, runs in groups.items()
    ]


def _row(
    name: str,
    runs: list[Run],
    own: dict[str, np.ndarray],
    other: dict[str, np.ndarray],
    figures: dict[Run, dict[str, np.ndarray]],
    times: dict[tuple[str, str], float],
) -> dict[str, Any]:
    minutes = [run.facts["cpu_seconds"] / 60 for run in runs]
    timed = (times.get((run.facts["model"]["sha256"], run.answer.name.split()[0])) for run in runs)
    return {
        "name": name,
        "seeds": [run.facts["seed"] for run in runs],
        "intervals_over": "images and seeds" if len(runs) > 1 else "images",
        "cpu_minutes": {"mean": float(np.mean(minutes)), "each": minutes},
        "epochs": [run.facts.get("epochs") for run in runs],
        "detections": [len(run.answer.results) for run in runs],
        "program": runs[0].facts.get("program"),
        "model_sha256": [run.facts["model"]["sha256"] for run in runs],
        "contract_sha256": runs[0].contract.sha256(),
        "image_ms": next((ms for ms in timed if ms is not None), None),
        "figures": {figure: interval_as_json(interval(values)) for figure, values in own.items()},
        "minus": {figure: interval_as_json(interval(own[figure] - values)) for figure, values in other.items()},
        "by_seed": [{figure: float(values[0]) for figure, values in figures[run].items()} for run in runs],
    }
