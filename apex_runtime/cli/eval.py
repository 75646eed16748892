"""``apex-rt eval``: how good an engine, or a file of predictions, is on a labelled data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apex_runtime.cli.options import (
    FiniteRange,
    chosen_budgets,
    dataset_type_option,
    engine_options,
    json_option,
    not_empty,
    say_fallback,
    split_list,
    tiles_option,
)
from apex_runtime.errors import UsageError
from apex_runtime.image_size import parse_size

if TYPE_CHECKING:
    from apex_runtime.data.dataset import DatasetType, InstanceDataset
    from apex_runtime.evaluation.prediction_files import PredictionFile

_RESAMPLES = 1000
_OF_ENGINES = (
    "budget",
    "tiles",
    "batch",
    "threads",
    "device",
    "policy",
    "size",
)  # options that a file of predictions has no use for


@click.command("eval")
@click.argument("engine", type=click.Path(), required=False, callback=not_empty)
@click.option("--predictions", type=click.Path(), callback=not_empty, help="Score this file of predictions instead of an ENGINE.")
@click.option("--png", type=click.Path(), help="PNGs of a panoptic prediction.  [default: the folder named like the file]")
@click.option("--data", type=click.Path(), required=True, callback=not_empty, help="A COCO, YOLO or satellite data set.")
@dataset_type_option
@click.option("--split", help="Which split of the data set.  [default: test; of a single file, the only one]")
@click.option(
    "--budget", multiple=True, default=("0.25", "1.0"), show_default=True, callback=split_list, help="Budgets, one row each."
)
@tiles_option(multiple=True)
@click.option(
    "--max-detections", type=click.IntRange(min=1), help="Detections that count per image.  [default: follows the data]"
)
@click.option("--min-score", type=FiniteRange(0, 1), help="Weakest detection to count.  [default: 0.001; of --predictions, all]")
@click.option("--batch", type=click.IntRange(1, 256), default=1, show_default=True, help="Images per call of the graph.")
@engine_options
@click.option("--size", metavar="N|HxW", help="Input size, for a checkpoint.")
@click.option("--bootstrap", is_flag=True, help=f"95 % intervals over images ({_RESAMPLES} resamples).")
@click.option("--per-class", is_flag=True, help="Also print the figures of every class (they are always in the JSON).")
@click.option("--output", "-o", type=click.Path(dir_okay=False), callback=not_empty, help="Also write the report to this file.")
@json_option
def evaluate(
    engine: str | None,
    predictions: str | None,
    png: str | None,
    data: str,
    dataset_type: DatasetType | None,
    split: str | None,
    per_class: bool,
    output: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """COCO average precision and recall of ENGINE (bundle, model.onnx or best.pt), its time and its memory, per budget.

    Where the truth is panoptic, its panoptic quality too. With --predictions, the same of results that exist: results.json of
    apex-rt infer, a list of COCO results, or a COCO panoptic prediction.

    \b
    Examples:
      apex-rt eval bundle/ --data nuclei/ --split test --budget 0.25,0.5,1.0
      apex-rt eval model.onnx --data nuclei/ --budget 1.0 --bootstrap --json --output report.json
      apex-rt eval best.pt --data nuclei/ --split val --size 512 --per-class
      apex-rt eval --predictions out/results.json --data nuclei/ --split val
      apex-rt eval --predictions panoptic.json --data coco/ --split panoptic_val
    """
    from apex_runtime.cli.data import choose_type, default_split
    from apex_runtime.cli.eval_report import table
    from apex_runtime.cli.places import check_places
    from apex_runtime.pipeline.results import write_json

    if (engine is None) == (predictions is None):
        raise UsageError("Give either an ENGINE or --predictions FILE.", "For example: apex-rt eval bundle/ --data nuclei/")
    check_places({"--output": output}, [path for path in (engine, predictions, data) if path is not None])
    kind = choose_type(Path(data), dataset_type)
    chosen = split or default_split(Path(data), kind)
    if engine is not None:
        if png is not None:
            raise UsageError("--png belongs to --predictions.", "Leave it out.")
        report = _of_engine(engine, Path(data), chosen, kind, options)
    else:
        source = click.get_current_context().get_parameter_source
        useless = [f"--{name}" for name in _OF_ENGINES if source(name) is click.core.ParameterSource.COMMANDLINE]
        if useless:
            raise UsageError(f"{', '.join(useless)}: predictions are scored as they are.", "Leave it out, or name an ENGINE.")
        report = _of_predictions(Path(str(predictions)), png, Path(data), chosen, kind, options)
    if output is not None:
        write_json(Path(output), report)
    click.echo(json.dumps(report, indent=2, allow_nan=False) if as_json else table(report, per_class))


def _of_engine(engine: str, data: Path, split: str, kind: DatasetType, options: dict[str, Any]) -> dict[str, Any]:
    from apex_runtime.bundle.load import open_engine
    from apex_runtime.cli.data import say_left_out, say_unknown_classes
    from apex_runtime.cli.eval_report import engine_report
    from apex_runtime.cli.progress import counter
    from apex_runtime.data.open import open_dataset
    from apex_runtime.evaluation.sweep import SweepOptions, sweep
    from apex_runtime.fairness.of_evaluation import of_evaluated_engine
    from apex_runtime.routing.planner import planned

    budgets = chosen_budgets(options["budget"], options["tiles"])
    if not budgets:
        raise UsageError("--budget: no budget given.", "For example --budget 0.25,1.0")
    dataset = open_dataset(data, split, kind)
    say_left_out(dataset)
    size = parse_size(options["size"]) if options["size"] else None
    opened = open_engine(engine, options["threads"], options["device"], options["policy"], size)
    say_fallback(opened)
    say_unknown_classes(opened.session.info, dataset)
    used = options["threads"], options["batch"], options["device"]
    budgets = tuple(planned(budget, opened, *used, engine=engine) for budget in budgets)
    min_score = 0.001 if options["min_score"] is None else options["min_score"]
    resamples = _RESAMPLES if options["bootstrap"] else 0
    sweeping = SweepOptions(min_score, options["max_detections"], options["batch"], resamples)
    position = {item.asked: index * len(dataset) for index, item in enumerate(budgets)}
    with counter(len(dataset) * len(budgets), "eval") as progress:
        rows = sweep(opened.session, dataset, budgets, sweeping, lambda asked, done: progress(position[asked] + done, 0))
    contract = _contract(dataset, options, min_score) | {"batch": options["batch"], "threads": options["threads"]}
    fairness = of_evaluated_engine(opened, engine, dataset, contract).model_dump(mode="json")
    return engine_report(opened, dataset, rows, contract) | {"fairness": fairness}


def _of_predictions(
    path: Path, png: str | None, data: Path, split: str, kind: DatasetType, options: dict[str, Any]
) -> dict[str, Any]:
    from apex_runtime.cli.data import say_left_out
    from apex_runtime.cli.eval_report import predictions_report
    from apex_runtime.evaluation.coco_documents import kinds_of
    from apex_runtime.evaluation.prediction_files import read_predictions
    from apex_runtime.evaluation.score import score_results
    from apex_runtime.evaluation.truth import open_truth
    from apex_runtime.fairness.of_evaluation import of_predictions

    dataset = open_truth(data, split, kind)
    say_left_out(dataset)
    file = read_predictions(path, dataset, None if png is None else Path(png))
    _say_differences(file, dataset)
    if file.panoptic is not None:
        contract = _contract(dataset, options, None, ()) | {"max_detections": None, "bootstrap": 0}
        scores = _panoptic_scores(file, dataset, options)
    else:
        kinds = kinds_of(file.results)
        min_score = options["min_score"]
        results = file.results if min_score is None else [entry for entry in file.results if entry["score"] >= min_score]
        contract = _contract(dataset, options, min_score, kinds)
        scores = score_results(dataset, results, contract["max_detections"], contract["bootstrap"], kinds)
    fairness = of_predictions(dataset, contract).model_dump(mode="json")
    return predictions_report(file, dataset, scores, contract) | {"fairness": fairness}


def _panoptic_scores(file: PredictionFile, dataset: InstanceDataset, options: dict[str, Any]) -> dict[str, Any]:
    """Segments have no score: there is a panoptic quality and no average precision."""
    from apex_runtime.data.coco.panoptic import PanopticDataset
    from apex_runtime.evaluation.panoptic_files import quality_of_predictions

    assert file.panoptic is not None
    if not isinstance(dataset, PanopticDataset):
        message = f"{file.path}: a panoptic prediction, but the truth of {dataset.split!r} in {dataset.source} is not panoptic."
        raise UsageError(message, f"Try --split panoptic_{dataset.split}.", path=file.path)
    useless = [name for name in ("max_detections", "min_score", "bootstrap") if options[name]]
    if useless:
        raise UsageError(f"--{useless[0].replace('_', '-')}: a panoptic prediction has no scores.", "Leave it out.")
    quality = quality_of_predictions(dataset, file.panoptic)
    return {"figures": {}, "intervals": {}, "per_class": [], "panoptic": quality, "detections": file.panoptic.count}


def _say_differences(file: PredictionFile, dataset: InstanceDataset) -> None:
    if file.left_out:
        click.echo(
            f"{file.path.name}: {file.left_out} results of images or classes that the split does not have left out", err=True
        )
    if file.images_missing:
        missing = f"{file.images_missing} of {len(dataset)} images of the split"
        click.echo(f"{file.path.name}: {missing} are not in it; their objects count as missed", err=True)


def _contract(
    dataset: InstanceDataset, options: dict[str, Any], min_score: float | None, iou_types: tuple[str, ...] = ("bbox", "segm")
) -> dict[str, Any]:
    """What must be equal for two reports to be compared."""
    from apex_runtime.evaluation.coco_ap import detection_limit
    from apex_runtime.evaluation.score import panoptic_contract

    return {
        "min_score": min_score,
        "max_detections": options["max_detections"] or detection_limit(dataset.ground_truth()),
        "bootstrap": _RESAMPLES if options["bootstrap"] else 0,
        "panoptic": panoptic_contract(dataset, iou_types),
    }
