"""``apex-train mine``: the images of a data set that a model gets wrong or is unsure of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apex_runtime.cli.options import FiniteRange, dataset_type_option, json_option, not_empty, split_list

if TYPE_CHECKING:
    from apex_runtime.data.dataset import DatasetType, InstanceDataset
    from apex_runtime.pipeline.results import Failure
    from apex_train.mining.look import Fared, Look
    from apex_train.predictor import TorchSession

_SIGNALS = ("loss", "disagreement", "regret")


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="A COCO, YOLO or satellite data set.")
@dataset_type_option
@click.option("--split", default="train", show_default=True, help="Which split of it.")
@click.option("--output", "-o", required=True, type=click.Path(file_okay=False), callback=not_empty, help="Folder for the files.")
@click.option("--share", type=FiniteRange(0, 1, min_open=True), default=0.3, show_default=True, help="Of the images: subset.")
@click.option("--emphasis", type=FiniteRange(1, 100), default=3.0, show_default=True, help="Weight of the hardest image.")
@click.option("--by", multiple=True, default=_SIGNALS, show_default=True, callback=split_list, help="Signals that count.")
@click.option(
    "--views",
    multiple=True,
    default=("flip-x", "flip-y", "scale-0.75"),
    show_default=True,
    callback=split_list,
    help="For disagreement.",
)
@click.option("--budget", default="0.25", show_default=True, help="Tiles that the router chooses, for its regret.")
@click.option("--draw", type=click.IntRange(0, 100), default=12, show_default=True, help="Images on the contact sheet; 0: none.")
@click.option("--size", default="512", show_default=True, metavar="N|HxW", help="Input size.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads.  [default: all cores]")
@json_option
def mine(
    checkpoint: Path,
    data: Path,
    dataset_type: DatasetType | None,
    split: str,
    output: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Rank the images of a labelled split by what CHECKPOINT gets wrong there (loss), finds in one view and not in another
    (disagreement), and by what its router passed over (regret).

    Writes report.json, subset.json (COCO, the hardest images), weights.json (for train.sample_weights) and sheet.png. The looks
    are kept in OUTPUT/looks: a search that was stopped goes on, and another --share or --by costs nothing.

    \b
    Examples:
      apex-train mine runs/a/best.pt --data nuclei/ -o hard/
      apex-train mine best.pt --data nuclei/ --share 0.1 --by loss,regret --budget 16 -o hard/
      apex-train fit --data nuclei/ --output runs/b --set train.sample_weights=hard/weights.json
    """
    from apex_runtime.errors import DataError
    from apex_runtime.pipeline.predictor import Predictor
    from apex_runtime.pipeline.results import write_json
    from apex_train.data.sample_weights import write_sample_weights
    from apex_train.mining import outputs
    from apex_train.mining.rank import emphasised, hardest, hardness

    look, session, dataset, provenance = _open(checkpoint, data, dataset_type, split, options)
    folder = Path(output)
    _check_output(folder, checkpoint, dataset)
    fared, failures = _looks(look, dataset, folder, provenance)
    if not fared:
        raise DataError(f"{dataset.source}: none of its {len(dataset)} images can be read.", f"The first: {failures[0].reason}")
    hard_I = hardness(fared, options["by"])
    weights_I, chosen = emphasised(hard_I, options["emphasis"]), hardest(hard_I, options["share"])
    report = outputs.report(dataset, fared, hard_I, weights_I, chosen, failures, provenance)
    write_json(folder / "subset.json", outputs.subset(dataset, [fared[number].place for number in chosen], provenance))
    names = [dataset.records[each.place].file_name for each in fared]
    write_sample_weights(folder / "weights.json", dict(zip(names, weights_I.round(5).tolist(), strict=True)), provenance)
    if options["draw"]:
        rows = [(fared[number], float(hard_I[number])) for number in chosen[: options["draw"]]]
        outputs.write_sheet(folder / "sheet.png", Predictor(session), dataset, options["budget"], rows)
    write_json(folder / "report.json", report)
    _say(report, output, as_json)
    if failures:
        raise SystemExit(1)


def _check_output(folder: Path, checkpoint: Path, dataset: InstanceDataset) -> None:
    """Raises UsageError for a folder that cannot be written, or in which the files would be taken for a part of the data set."""
    from apex_runtime.cli.places import check_places
    from apex_runtime.errors import UsageError

    files = dataset.annotation_files()
    check_places({"--output": str(folder / "subset.json")}, [str(checkpoint)])
    if folder.resolve() in {file.resolve().parent for file in files}:
        message = f"--output {folder}: holds the annotations of {dataset.source}, of which subset.json would be one more."
        raise UsageError(message, "Name a folder of its own.", path=folder)


def _looks(look: Look, dataset: InstanceDataset, folder: Path, provenance: dict[str, Any]) -> tuple[list[Fared], list[Failure]]:
    """How the model fares on every image that can be read; what was looked at before is not looked at again."""
    from apex_runtime.cli.progress import counter
    from apex_runtime.errors import DataError
    from apex_runtime.pipeline.results import Failure
    from apex_train.mining.kept import KeptLooks

    kept = KeptLooks(folder / "looks", {name: provenance[name] for name in ("model", "data", "views", "budget", "loss")})
    fared: list[Fared] = []
    failures: list[Failure] = []
    with counter(len(dataset), "mine") as progress:
        for place, record in enumerate(dataset.records):
            found = kept.find(record.file_name, place)
            try:
                if found is None:
                    found = look.at(place)
                    kept.add(record.file_name, found)
                fared.append(found)
            except DataError as error:
                failures.append(Failure.of(record.file_name, error))
            progress(len(fared), len(failures))
    return fared, failures


def _open(checkpoint: Path, data: Path, kind: DatasetType | None, split: str, options: dict[str, Any]) -> Any:
    from apex_runtime.cli.data import choose_type, say_left_out
    from apex_runtime.data.dataset import refuse
    from apex_runtime.data.open import open_dataset
    from apex_runtime.errors import UsageError
    from apex_runtime.image_size import parse_size
    from apex_train.config import LossConfig
    from apex_train.mining.look import Look
    from apex_train.mining.own_loss import own_loss
    from apex_train.predictor import open_checkpoint
    from apex_train.pseudo.views import parse_views

    strange = [name for name in options["by"] if name not in _SIGNALS]
    if strange or not options["by"]:
        raise UsageError(f"--by {','.join(options['by'])}: no such signal.", f"Known are {', '.join(_SIGNALS)}.")
    if len(set(options["by"])) < len(options["by"]):
        raise UsageError(f"--by {','.join(options['by'])}: a signal is named twice.", "Name each once.")
    views = parse_views(options["views"])
    # Not strict, for then the first image that cannot be read would be the end; what annotates must be sound all the same.
    dataset = open_dataset(data, split, choose_type(data, kind), strict=False)
    refuse(dataset.findings, dataset.source)
    say_left_out(dataset)
    session = open_checkpoint(checkpoint, parse_size(options["size"]), options["threads"], device=options["device"])
    own = own_loss(checkpoint)
    loss = own or LossConfig()
    provenance = _provenance(session, dataset, options) | {
        "views": [view.name for view in views],
        "loss": {"of": "defaults" if own is None else "checkpoint", "values": loss.model_dump(mode="json")},
    }
    return Look(session, dataset, views, options["budget"], loss), session, dataset, provenance


def _provenance(session: TorchSession, dataset: InstanceDataset, options: dict[str, Any]) -> dict[str, Any]:
    info = session.info
    return {
        "model": {"checkpoint_sha256": info.checkpoint_sha256, "input": [info.input.height, info.input.width]},
        "data": {"split": dataset.split, "images": len(dataset), "fingerprint": dataset.fingerprint()},
        "by": list(options["by"]),
        "budget": options["budget"],
        "emphasis": options["emphasis"],
    }


def _say(report: dict[str, Any], output: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(report, indent=2, allow_nan=False))
        return
    from apex_runtime.cli.wide_console import wide_console
    from apex_train.mining.table import show

    show(report, output, wide_console())
