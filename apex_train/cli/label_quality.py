"""``apex-train label-quality``: how far a model agrees with each annotation, as weights for a training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apex_runtime.cli.options import FiniteRange, dataset_type_option, engine_options, json_option, not_empty, say_fallback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from apex_runtime.data.dataset import DatasetType

_SHARE = FiniteRange(0, 1)


@click.command("label-quality")
@click.argument("engine", callback=not_empty)
@click.option("--data", required=True, type=click.Path(path_type=Path), help="A COCO, YOLO or satellite data set.")
@dataset_type_option
@click.option("--split", default="train", show_default=True, help="Which split of it.")
@click.option(
    "--output", "-o", required=True, type=click.Path(dir_okay=False), callback=not_empty, help="The COCO file to write."
)
@click.option("--min-score", type=_SHARE, default=0.02, show_default=True, help="Least score that speaks for an annotation.")
@click.option(
    "--unlabelled-score", type=_SHARE, default=0.5, show_default=True, help="From this score on nobody annotated an object."
)
@click.option(
    "--unlabelled",
    type=click.Choice(["crowd", "background"]),
    default="crowd",
    show_default=True,
    help="Such an object becomes a crowd region, from which a training learns nothing, or stays background.",
)
@click.option("--truth", type=click.Path(path_type=Path), help="Record of planted noise: say how well it is found.")
@engine_options
@click.option("--size", metavar="N|HxW", help="Input size, for a checkpoint.")
@click.option("--report", "report_file", type=click.Path(dir_okay=False), callback=not_empty, help="Also write the report here.")
@json_option
def label_quality(
    engine: str,
    data: Path,
    dataset_type: DatasetType | None,
    split: str,
    output: str,
    truth: Path | None,
    report_file: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Write the annotations of a split again, each with a quality: the best IoU with what ENGINE, a checkpoint, bundle folder or
    model.onnx, finds of its class. The quality is also its weight, by which a training counts it and admits it (labels.first).

    \b
    Examples:
      apex-train label-quality runs/a/best.pt --data nuclei/ -o judged/annotations/train.json
      apex-train label-quality best.pt --data nuclei/ --unlabelled background --size 256 -o train.json --json
      apex-train fit --data judged/ --output runs/b --set labels.first=0.5 --set labels.last=0.9
    """
    from apex_runtime.bundle.load import open_engine
    from apex_runtime.cli.data import choose_type, say_left_out
    from apex_runtime.cli.places import check_places
    from apex_runtime.cli.progress import counter
    from apex_runtime.data.open import open_dataset
    from apex_runtime.image_size import parse_size
    from apex_runtime.pipeline.predictor import Predictor
    from apex_runtime.pipeline.results import write_json
    from apex_train.labels.planted import read_record
    from apex_train.labels.run import LabelJudge, Limits

    dataset = open_dataset(data, split, choose_type(data, dataset_type))
    say_left_out(dataset)
    read = [*dataset.annotation_files(), *(record.path for record in dataset.records)]
    check_places({"--output": output, "--report": report_file}, [engine, *map(str, read)])
    limits = Limits(options["min_score"], options["unlabelled_score"], options["unlabelled"] == "crowd")
    record = None if truth is None else read_record(truth, dataset.source)
    size = parse_size(options["size"]) if options["size"] else None
    opened = open_engine(engine, options["threads"], options["device"], options["policy"], size)
    say_fallback(opened)
    info = opened.session.info
    model = {"sha256": opened.digest, "backend": opened.executed, "input": [info.input.height, info.input.width]}
    judge = LabelJudge(Predictor(opened.session), dataset, limits, model)
    with counter(len(dataset), "label-quality") as progress:
        judge.run(progress)
    report = judge.report(record)
    write_json(Path(output), judge.document())
    if report_file is not None:
        write_json(Path(report_file), report)
    click.echo(json.dumps(report, indent=2, allow_nan=False) if as_json else "\n".join(_lines(report, output)))


def _lines(report: Mapping[str, Any], output: str) -> list[str]:
    lines = [f"{report['annotations']} annotations, {report['unlabelled']} objects that nobody annotated"]
    lines += [f"{row['share']:>5.0%} of them have a quality of at most {row['quality']:.2f}" for row in report["quantiles"]]
    lines += [
        f"least believed: {row['file_name']}  {row['agreement']:.2f}"
        for row in report["images"][:5]
        if row["agreement"] is not None
    ]
    for row in report["truth"]["kinds"] if report["truth"] else ():
        if row["auc"] is not None:
            lines.append(
                f"{row['kind']}: {row['annotations']} wrong, told from right ones by "
                f"{row['auc']['value']:.3f} ({row['auc']['low']:.3f} to {row['auc']['high']:.3f})"
            )
    return [*lines, f"written: {output}"]
