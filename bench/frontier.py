"""The frontier: accuracy and time over the budget, with everything that a choice of tiles can be compared with on the same axes.

    python bench/frontier.py engines/nuclei-nano/checkpoint.pt --data DIR --output FILE.json --plot FILE.png
    python bench/frontier.py runs/0/best.pt runs/1/best.pt runs/2/best.pt --data DIR --size 384x1280 --output FILE.json

One exported engine, the same for every line that has a budget: the router's own tiles, random ones, and those that a truth would
choose (``frontier_choices.py``), forced by ``tile_bonus``. Beside it: all tiles, no tiles, a dense pass and a sliced one of the
same weights. A budget is a share of the tiles that show the image. Several checkpoints, of trainings that differ in their seed:
the rows are their means, the figures of each are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from evidence import write_evidence
from frontier_figures import averaged, rows, summary
from frontier_plot import draw
from frontier_run import MIN_SCORE, Engines, Measured, Plan, measure_lines
from frontier_speed import Speed, time_lines
from frontier_table import show
from measured import kinds_of, read_size, spread

from apex_runtime.cli.options import dataset_type_option, split_list
from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.data.open import open_dataset
from apex_runtime.evaluation.coco_ap import detection_limit
from apex_runtime.evaluation.coco_matching import default_backend
from apex_runtime.frontier.figures import resamples, sampled
from apex_runtime.routing.budget import Budget, parse_budget
from apex_runtime.yardsticks.slicing import Slicing
from apex_train.checkpoint import file_sha256, load_model
from apex_train.model.detector import ApexDetector

BUDGETS = "0.0625,0.125,0.25,0.5,0.75"


@click.command()
@click.argument("checkpoints", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path))
@dataset_type_option
@click.option("--split", default="test", show_default=True)
@click.option("--size", default="512", show_default=True, callback=read_size, help="One side, or HEIGHTxWIDTH.")
@click.option("--images", type=click.IntRange(1), help="At most, evenly spread.  [default: all]")
@click.option("--budget", "budgets", multiple=True, default=(BUDGETS,), show_default=True, callback=split_list)
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(1), help="Of random tiles.")
@click.option("--oracle", default="background", show_default=True, type=click.Choice(["background", "alone", "greedy"]))
@click.option(
    "--slice", "side", type=click.IntRange(32), help="Side of a window.  [default: half the shorter side, in whole tiles]"
)
@click.option("--slice-overlap", default=0.2, show_default=True, type=click.FloatRange(0, 0.9))
@click.option("--slice-zoom", default=1.0, show_default=True, help="Scale of the windows over that of the engine's input.")
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1))
@click.option("--rounds", default=15, show_default=True, type=click.IntRange(2))
@click.option("--warmup", default=2, show_default=True)
@click.option("--samples", default=1000, show_default=True, help="Resamples of the images.")
@click.option("--title", default="Apex-X", show_default=True, help="Of the picture.")
@click.option("--output", type=click.Path(path_type=Path))
@click.option("--plot", type=click.Path(path_type=Path))
def main(checkpoints: tuple[Path, ...], data: Path, output: Path | None, plot: Path | None, **asked: Any) -> None:
    """Measure CHECKPOINTS and print, write and draw the frontier."""
    models = [load_model(path) for path in checkpoints]
    if any(model.config != models[0].config for model in models):
        raise click.UsageError("the checkpoints are of different networks: their rows have no mean")
    dataset = open_dataset(data, asked["split"], asked["dataset_type"])
    plan = make_plan(dataset, models[0], asked)
    runs = [_run(path, model, plan) for path, model in zip(checkpoints, models, strict=True)]
    engines, first = runs[0]
    click.echo("time")
    speed = time_lines(engines, first.tiles, first.windows, asked["rounds"], asked["warmup"])
    content = evidence_of(checkpoints, [found for _, found in runs], plan, speed, asked)
    show(content)
    if output is not None:
        write_evidence(output, content)
    if plot is not None:
        draw(content, plot)


def _run(path: Path, model: ApexDetector, plan: Plan) -> tuple[Engines, Measured]:
    click.echo(f"{path}: export")
    engines = Engines(model, plan)
    return engines, measure_lines(model, engines, plan, click.echo)


def make_plan(dataset: InstanceDataset, model: ApexDetector, asked: dict[str, Any]) -> Plan:
    """The options as what is measured."""
    truth, size, tile = dataset.ground_truth(), asked["size"], model.config.tile
    side = asked["side"] or -(-min(size) // (2 * tile)) * tile
    return Plan(
        dataset=dataset,
        indices=spread(list(range(len(dataset))), asked["images"]),
        kinds=kinds_of(truth),
        limit=detection_limit(truth),
        size=size,
        budgets=_budgets(asked["budgets"]),
        seeds=asked["seeds"],
        ranking=asked["oracle"],
        slicing=Slicing(side, asked["slice_overlap"], size=size, zoom=asked["slice_zoom"]),
        threads=asked["threads"],
    )


def _budgets(words: Sequence[str]) -> tuple[Budget, ...]:
    """In ascending order, without all tiles, which is a line of its own."""
    budgets = {budget.value: budget for budget in map(parse_budget, words) if (budget.kind, budget.value) != ("share", 1.0)}
    if any(budget.kind != "share" for budget in budgets.values()) or not budgets:
        raise click.UsageError("--budget: give shares of the tiles, below 1.0, for example 0.125,0.25")
    return tuple(budgets[value] for value in sorted(budgets))


def evidence_of(
    checkpoints: Sequence[Path], found: Sequence[Measured], plan: Plan, speed: Speed, asked: dict[str, Any]
) -> dict[str, Any]:
    """The content of the evidence file; the table and the picture are made of it."""
    counts = resamples(len(plan.indices), asked["samples"])
    each = [sampled(run.matches, counts) for run in found]
    names, mean = [budget.asked for budget in plan.budgets], averaged(each)
    return {
        "contract": _contract(checkpoints, plan, asked),
        "rows": rows(mean, found[0].tiles, speed.of_lines()),
        "summary": {kind: summary(mean, names, kind) for kind in plan.kinds},
        "oracle_seconds_per_image": [run.oracle_seconds for run in found],
        "each_checkpoint": [rows(lines, run.tiles, {}) for lines, run in zip(each, found, strict=True)],
        "samples_ms": speed.samples,
    }


def _contract(checkpoints: Sequence[Path], plan: Plan, asked: dict[str, Any]) -> dict[str, Any]:
    return {
        "title": asked["title"],
        "checkpoints": [file_sha256(path) for path in checkpoints],
        "data": plan.dataset.fingerprint(),
        "split": asked["split"],
        "images": len(plan.indices),
        "size": list(plan.size),
        "kinds": list(plan.kinds),
        "max_detections": plan.limit,
        "min_score": MIN_SCORE,
        "evaluator": default_backend(),
        "resamples": asked["samples"],
        "seeds": plan.seeds,
        "oracle": plan.ranking,
        "slicing": {name: getattr(plan.slicing, name) for name in ("side", "overlap", "zoom", "match", "threshold")},
        "timed": "first checkpoint, graph only, batch 1 (sliced: its windows), noise, host arrays in and out, second of two",
        "backend": "onnxruntime CPU",
        "precision": "fp32",
        "threads": plan.threads,
        "rounds": asked["rounds"],
        "warmup": asked["warmup"],
    }


if __name__ == "__main__":
    main()
