"""``apex-train pseudo-label``: labels that a model gives to images nobody has annotated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apex_runtime.cli.options import dataset_type_option, engine_options, json_option, not_empty, say_fallback
from apex_train.cli.label_options import SHARE, choice_of, given, label_options

if TYPE_CHECKING:
    from apex_runtime.bundle.load import Opened
    from apex_runtime.data.dataset import DatasetType, InstanceDataset
    from apex_runtime.pipeline.predictor import Predictor
    from apex_train.pseudo.pictures import Pictures
    from apex_train.pseudo.run import Choice


@click.command("pseudo-label")
@click.argument("source", callback=not_empty)
@click.option("--engine", required=True, type=click.Path(), callback=not_empty, help="Checkpoint, bundle folder or model.onnx.")
@click.option(
    "--output", "-o", required=True, type=click.Path(dir_okay=False), callback=not_empty, help="The COCO file to write."
)
@click.option("--split", help="SOURCE is a data set: label this split of it, and compare with its truth.")
@dataset_type_option
@label_options
@click.option("--calibrate", metavar="SPLIT", help="Choose the four limits on this split, whose annotations are the truth.")
@click.option("--calibrate-data", type=click.Path(), callback=not_empty, help="The data set of that split.  [default: SOURCE]")
@click.option("--precision", type=SHARE, default=0.9, show_default=True, help="That --calibrate reaches there, at IoU 0.5.")
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
    report_file: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Write what a model finds in SOURCE as a COCO file that apex-train fit reads: images, a folder, a pattern, a .txt list; or,
    with --split, a data set, whose annotations are then the truth that the labels are compared with.

    A label has its score and a weight, by which a training counts it. The file says of which model, limits and images it is.
    Put it where a data set has its annotations, for example annotations/train.json beside images/. --calibrate chooses the limits
    on images that the model was not trained on.

    \b
    Examples:
      apex-train pseudo-label images/ --engine runs/a/best.pt -o pseudo/annotations/train.json
      apex-train pseudo-label 'scans/*.png' --engine bundle/ --min-score 0.7 --views flip-x -o labels.json
      apex-train pseudo-label images/ --engine best.pt --calibrate val --calibrate-data nuclei/ --precision 0.9 -o labels.json
      apex-train pseudo-label nuclei/ --split val --engine best.pt --size 512 -o labels.json --json
    """
    from apex_runtime.cli.places import check_places
    from apex_runtime.cli.progress import counter
    from apex_runtime.pipeline.predictor import Predictor
    from apex_runtime.pipeline.results import write_json
    from apex_train.pseudo.run import Labelling, model_facts

    choice = _choice(options)
    pictures = _pictures(source, split, dataset_type)
    known = _calibration_set(source, dataset_type, options)
    check_places({"--output": output, "--report": report_file}, [engine, source, *_files_of(pictures, known)])
    opened = _open(engine, options)
    predictor = Predictor(opened.session)
    if known is not None:
        choice = _calibrated(choice, predictor, known, options["precision"])
    labelling = Labelling(predictor, pictures, choice, model_facts(opened))
    with counter(len(pictures.items), "pseudo-label") as progress:
        labelling.run(progress)
    report = labelling.report()
    write_json(Path(output), labelling.document())
    if report_file is not None:
        write_json(Path(report_file), report)
    _say(report, output, as_json)
    if labelling.failures:
        raise SystemExit(1)


def _choice(options: dict[str, Any]) -> Choice:
    from apex_runtime.errors import UsageError

    lonely = [name for name in ("calibrate_data", "precision") if given(name)]
    if options["calibrate"] is None and lonely:
        raise UsageError(f"--{lonely[0].replace('_', '-')} is for --calibrate.", "Name the split to choose the limits on.")
    return choice_of(options, None if options["calibrate"] is None else "--calibrate")


def _calibration_set(source: str, kind: DatasetType | None, options: dict[str, Any]) -> InstanceDataset | None:
    from apex_runtime.cli.data import choose_type
    from apex_runtime.data.open import open_dataset

    if options["calibrate"] is None:
        return None
    data = Path(options["calibrate_data"] or source)
    return open_dataset(data, options["calibrate"], choose_type(data, kind))


def _files_of(pictures: Pictures, known: InstanceDataset | None) -> list[str]:
    """The images and annotations that are read, and so are not written over."""
    annotated = [each for each in (pictures.dataset, known) if each is not None]
    files = [file for each in annotated for file in each.annotation_files()]
    return [str(path) for path in (*(item.path for item in pictures.items), *files)]


def _calibrated(choice: Choice, predictor: Predictor, known: InstanceDataset, precision: float) -> Choice:
    from dataclasses import replace

    from apex_runtime.cli.progress import counter
    from apex_train.pseudo.calibrate import calibrate

    with counter(len(known), "calibrate") as progress:
        found = calibrate(predictor, known, choice.views, precision, progress)
    return replace(choice, limits=found.limits, calibration=found.facts())


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


def _say(report: dict[str, Any], output: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(report, indent=2, allow_nan=False))
        return
    from rich.console import Console

    from apex_train.pseudo.table import show

    console = Console(emoji=False)
    show(report, console)
    console.print(f"written: {output}", markup=False, highlight=False, soft_wrap=True)
