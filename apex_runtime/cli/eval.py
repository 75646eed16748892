"""``apex-rt eval``: average precision of an engine on a labelled data set, per budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apex_runtime.cli.options import dataset_type_option, engine_options, json_option, parse_size, split_list
from apex_runtime.errors import UsageError

if TYPE_CHECKING:
    from apex_runtime.bundle.load import Opened
    from apex_runtime.data.dataset import DatasetType, InstanceDataset

REPORT_FORMAT_VERSION = 1
_RESAMPLES = 1000
_COLUMNS = ("mAP_bbox", "AP50_bbox", "mAP_segm", "AP50_segm", "AP75_segm")


@click.command("eval")
@click.argument("engine", type=click.Path())
@click.option("--data", type=click.Path(), required=True, help="A COCO, YOLO or satellite data set.")
@dataset_type_option
@click.option("--split", default="test", show_default=True, help="Which split of the data set.")
@click.option(
    "--budget", multiple=True, default=("0.25", "1.0"), show_default=True, callback=split_list, help="Budgets, one row each."
)
@click.option(
    "--max-detections", type=click.IntRange(min=1), help="Detections that count per image.  [default: follows the data]"
)
@click.option("--min-score", type=click.FloatRange(0, 1), default=0.001, show_default=True, help="Weakest detection to count.")
@click.option("--batch", type=click.IntRange(1, 256), default=1, show_default=True, help="Images per call of the graph.")
@engine_options
@click.option("--size", metavar="N|HxW", help="Input size, for a checkpoint.")
@click.option("--bootstrap", is_flag=True, help=f"95 % intervals over images ({_RESAMPLES} resamples).")
@click.option("--output", "-o", type=click.Path(dir_okay=False), help="Also write the report to this file.")
@json_option
def evaluate(
    engine: str,
    data: str,
    dataset_type: DatasetType | None,
    split: str,
    budget: tuple[str, ...],
    max_detections: int | None,
    min_score: float,
    batch: int,
    threads: int | None,
    device: str,
    policy: str,
    size: str | None,
    bootstrap: bool,
    output: str | None,
    as_json: bool,
) -> None:
    """COCO average precision of boxes and masks of ENGINE (bundle, model.onnx or best.pt), and the graph's time, per budget.

    \b
    Examples:
      apex-rt eval bundle/ --data nuclei/ --split test --budget 0.25,0.5,1.0
      apex-rt eval model.onnx --data nuclei/ --budget 1.0 --bootstrap --json --output report.json
      apex-rt eval best.pt --data nuclei/ --split val --size 512
    """
    from apex_runtime.bundle.load import open_engine
    from apex_runtime.cli.data import choose_type, say_left_out, say_unknown_classes
    from apex_runtime.cli.progress import counter
    from apex_runtime.data.open import open_dataset
    from apex_runtime.evaluation.sweep import SweepOptions, sweep
    from apex_runtime.pipeline.results import write_json
    from apex_runtime.routing.budget import parse_budget

    budgets = [parse_budget(item) for item in budget]
    if not budgets:
        raise UsageError("--budget: no budget given.", "For example --budget 0.25,1.0")
    kind = choose_type(Path(data), dataset_type)
    dataset = open_dataset(Path(data), split, kind)
    say_left_out(dataset)
    opened = open_engine(engine, threads, device, policy, parse_size(size) if size else None)
    say_unknown_classes(opened.session.info, dataset)
    options = SweepOptions(min_score, max_detections, batch, _RESAMPLES if bootstrap else 0)
    position = {item.asked: index * len(dataset) for index, item in enumerate(budgets)}
    with counter(len(dataset) * len(budgets), "eval") as progress:
        rows = sweep(opened.session, dataset, budgets, options, lambda asked, done: progress(position[asked] + done, 0))
    report = _report(opened, dataset, split, rows, _contract(options, dataset, threads))
    if output is not None:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        write_json(Path(output), report)
    click.echo(json.dumps(report, indent=2) if as_json else _table(report))


def _contract(options: Any, dataset: InstanceDataset, threads: int | None) -> dict[str, Any]:
    """What must be equal for two reports to be compared."""
    from apex_runtime.evaluation.coco_ap import detection_limit

    limit = options.max_detections or detection_limit(dataset.ground_truth())
    return {
        "min_score": options.min_score,
        "max_detections": limit,
        "batch": options.batch,
        "threads": threads,
        "bootstrap": options.bootstrap,
    }


def _report(
    opened: Opened, dataset: InstanceDataset, split: str, rows: list[dict[str, Any]], contract: dict[str, Any]
) -> dict[str, Any]:
    info = opened.session.info
    return {
        "format_version": REPORT_FORMAT_VERSION,
        "engine": {
            "model_sha256": opened.digest,
            "requested": opened.requested,
            "executed": opened.executed,
            "reason": opened.reason or None,
            "input": [info.input.height, info.input.width],
            "tiles": info.tiles.count,
        },
        "data": {
            "split": split,
            "images": len(dataset),
            "objects": len(dataset.ground_truth()["annotations"]),
            "fingerprint": dataset.fingerprint(),
        },
        "contract": contract,
        "budgets": rows,
    }


def _table(report: dict[str, Any]) -> str:
    """Average precision in percent."""
    data, engine = report["data"], report["engine"]
    head = f"{'budget':<10}{'tiles':>8}" + "".join(f"{name:>12}" for name in _COLUMNS) + f"{'ms (p95)':>18}"
    lines = [
        f"{data['split']}: {data['images']} images, {data['objects']} objects; {engine['executed']} at "
        f"{engine['input'][0]}x{engine['input'][1]}, at most {report['contract']['max_detections']} detections; AP in percent",
        head,
    ]
    for row in report["budgets"]:
        figures = "".join(f"{_percent(row['figures'][name]):>12}" for name in _COLUMNS)
        times = row["graph_milliseconds"]
        lines.append(f"{row['budget']:<10}{row['tiles_per_image']:>8.1f}{figures}{times['median']:>10.1f} ({times['p95']:.1f})")
        lines += [f"{'':<10}{name}: {low:.1%} to {high:.1%} (95 %)" for name, (low, high) in row["intervals"].items()]
    return "\n".join(lines)


def _percent(value: float) -> str:
    return "-" if value < 0 else f"{100 * value:.1f}"
