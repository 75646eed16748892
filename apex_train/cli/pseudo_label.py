"""``apex-train pseudo-label``: labels that a model gives to images nobody has annotated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apex_runtime.cli.options import dataset_type_option, engine_options, json_option, not_empty, say_fallback, split_list

if TYPE_CHECKING:
    from apex_runtime.bundle.load import Opened
    from apex_runtime.data.dataset import DatasetType
    from apex_train.pseudo.pictures import Pictures

_SHARE = click.FloatRange(0, 1)


@click.command("pseudo-label")
@click.argument("source", callback=not_empty)
@click.option("--engine", required=True, type=click.Path(), callback=not_empty, help="Checkpoint, bundle folder or model.onnx.")
@click.option(
    "--output", "-o", required=True, type=click.Path(dir_okay=False), callback=not_empty, help="The COCO file to write."
)
@click.option("--split", help="SOURCE is a data set: label this split of it, and compare with its truth.")
@dataset_type_option
@click.option("--min-score", type=_SHARE, default=0.5, show_default=True, help="Least score of a label.")
@click.option(
    "--min-stability",
    type=_SHARE,
    default=0.8,
    show_default=True,
    help="Least share of a mask that stays when its threshold moves.",
)
@click.option(
    "--min-agreement", type=_SHARE, default=0.7, show_default=True, help="Least IoU of a box and the box around its mask."
)
@click.option(
    "--min-consistency", type=_SHARE, default=0.5, show_default=True, help="Least mean IoU with what is found in the views."
)
@click.option(
    "--views",
    multiple=True,
    default=("flip-x", "flip-y", "scale-0.75"),
    show_default=True,
    callback=split_list,
    help="How the model sees every image again: flip-x, flip-y, flip-xy, scale-S; or none.",
)
@click.option(
    "--unsure-score", type=_SHARE, default=0.1, show_default=True, help="From this score on what is no label is unsure."
)
@click.option(
    "--unsure",
    type=click.Choice(["crowd", "background"]),
    default="crowd",
    show_default=True,
    help="What is unsure becomes a crowd region, from which a training learns nothing, or background.",
)
@engine_options
@click.option("--size", metavar="N|HxW", help="Input size, for a checkpoint.")
@click.option("--report", "report_file", type=click.Path(dir_okay=False), callback=not_empty, help="Also write the report here.")
@json_option
def pseudo_label(
    source: str,
    engine: str,
    output: str,
    split: str | None,
    dataset_type: DatasetType | None,
    views: tuple[str, ...],
    unsure: str,
    report_file: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Write what a model finds in SOURCE as a COCO file that apex-train fit reads: images, a folder, a pattern, a .txt list; or,
    with --split, a data set, whose annotations are then the truth that the labels are compared with.

    A label has its score and a weight, by which a training counts it. The file says of which model, limits and images it is.
    Put it where a data set has its annotations, for example annotations/train.json beside images/.

    \b
    Examples:
      apex-train pseudo-label images/ --engine runs/a/best.pt -o pseudo/annotations/train.json
      apex-train pseudo-label 'scans/*.png' --engine bundle/ --min-score 0.7 --views flip-x -o labels.json
      apex-train pseudo-label nuclei/ --split val --engine best.pt --size 512 -o labels.json --json
    """
    from apex_runtime.cli.places import check_places
    from apex_runtime.cli.progress import counter
    from apex_runtime.pipeline.predictor import Predictor
    from apex_runtime.pipeline.results import write_json
    from apex_train.pseudo.choose import Limits
    from apex_train.pseudo.run import Choice, Labelling
    from apex_train.pseudo.views import parse_views

    names = ("score", "stability", "agreement", "consistency")
    limits = Limits(**{name: options[f"min_{name}"] for name in names}, unsure=options["unsure_score"])
    choice = Choice(limits, parse_views(views), unsure == "crowd")
    check_places({"--output": output, "--report": report_file}, [engine, source])
    pictures = _pictures(source, split, dataset_type)
    opened = _open(engine, options)
    labelling = Labelling(Predictor(opened.session), pictures, choice, _model(opened))
    with counter(len(pictures.items), "pseudo-label") as progress:
        labelling.run(progress)
    report = labelling.report()
    write_json(Path(output), labelling.document())
    if report_file is not None:
        write_json(Path(report_file), report)
    _say(report, output, as_json)
    if labelling.failures:
        raise SystemExit(1)


def _pictures(source: str, split: str | None, kind: DatasetType | None) -> Pictures:
    from apex_runtime.errors import UsageError
    from apex_train.pseudo.pictures import of_dataset, of_files

    if split is None:
        from apex_runtime.data.sources import resolve_sources

        if kind is not None:
            raise UsageError("--dataset-type is about data sets.", "Name the --split to label, or leave it out.")
        return of_files(resolve_sources(source))
    from apex_runtime.cli.data import choose_type, say_left_out
    from apex_runtime.data.open import open_dataset

    dataset = open_dataset(Path(source), split, choose_type(Path(source), kind))
    say_left_out(dataset)
    return of_dataset(dataset)


def _open(engine: str, options: dict[str, Any]) -> Opened:
    from apex_runtime.bundle.load import open_engine
    from apex_runtime.image_size import parse_size

    size = parse_size(options["size"]) if options["size"] else None
    opened = open_engine(engine, options["threads"], options["device"], options["policy"], size)
    say_fallback(opened)
    return opened


def _model(opened: Opened) -> dict[str, Any]:
    info = opened.session.info
    return {
        "sha256": opened.digest,
        "checkpoint_sha256": info.checkpoint_sha256,
        "backend": opened.executed,
        "input": [info.input.height, info.input.width],
    }


def _say(report: dict[str, Any], output: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(report, indent=2, allow_nan=False))
        return
    from rich.console import Console

    from apex_train.pseudo.table import show

    console = Console(emoji=False)
    show(report, console)
    console.print(f"written: {output}", markup=False, highlight=False, soft_wrap=True)
