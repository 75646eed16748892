"""``apex-train mine``: the images of a data set that a model gets wrong or is unsure of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apex_runtime.cli.options import dataset_type_option, json_option, not_empty, split_list

if TYPE_CHECKING:
    from apex_runtime.data.dataset import DatasetType

_SIGNALS = ("loss", "disagreement", "regret")


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), help="A COCO, YOLO or satellite data set.")
@dataset_type_option
@click.option("--split", default="train", show_default=True, help="Which split of it.")
@click.option("--output", "-o", required=True, type=click.Path(file_okay=False), callback=not_empty, help="Folder for the files.")
@click.option(
    "--share", type=click.FloatRange(0, 1, min_open=True), default=0.3, show_default=True, help="Of the images: subset."
)
@click.option("--emphasis", type=click.FloatRange(1, 100), default=3.0, show_default=True, help="Weight of the hardest image.")
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

    Writes report.json, subset.json (COCO, the hardest images), weights.json (for train.sample_weights) and sheet.png.

    \b
    Examples:
      apex-train mine runs/a/best.pt --data nuclei/ -o hard/
      apex-train mine best.pt --data nuclei/ --share 0.1 --by loss,regret --budget 16 -o hard/
      apex-train fit --data nuclei/ --output runs/b --set train.sample_weights=hard/weights.json
    """
    from apex_runtime.cli.progress import counter
    from apex_runtime.pipeline.predictor import Predictor
    from apex_runtime.pipeline.results import write_json
    from apex_train.data.sample_weights import write_sample_weights
    from apex_train.mining import outputs
    from apex_train.mining.rank import emphasised, hardest, hardness

    look, session, dataset, provenance = _open(checkpoint, data, dataset_type, split, options)
    fared = []
    with counter(len(dataset), "mine") as progress:
        for place in range(len(dataset)):
            fared.append(look.at(place))
            progress(place + 1, 0)
    hard_I = hardness(fared, options["by"])
    weights_I, places = emphasised(hard_I, options["emphasis"]), hardest(hard_I, options["share"])
    folder = Path(output)
    report = outputs.report(dataset, fared, hard_I, weights_I, places, provenance)
    names = [record.file_name for record in dataset.records]
    write_json(folder / "subset.json", outputs.subset(dataset, places, provenance))
    write_sample_weights(folder / "weights.json", dict(zip(names, weights_I.round(5).tolist(), strict=True)), provenance)
    if options["draw"]:
        outputs.write_sheet(folder / "sheet.png", Predictor(session), dataset, places[: options["draw"]])
    write_json(folder / "report.json", report)
    click.echo(json.dumps(report, indent=2, allow_nan=False) if as_json else _table(report, output))


def _open(checkpoint: Path, data: Path, kind: DatasetType | None, split: str, options: dict[str, Any]) -> Any:
    from apex_runtime.cli.data import choose_type, say_left_out
    from apex_runtime.data.open import open_dataset
    from apex_runtime.errors import UsageError
    from apex_runtime.image_size import parse_size
    from apex_train.config import LossConfig
    from apex_train.mining.look import Look
    from apex_train.predictor import open_checkpoint
    from apex_train.pseudo.views import parse_views

    strange = [name for name in options["by"] if name not in _SIGNALS]
    if strange or not options["by"]:
        raise UsageError(f"--by {','.join(options['by'])}: no such signal.", f"Known are {', '.join(_SIGNALS)}.")
    views = parse_views(options["views"])
    dataset = open_dataset(data, split, choose_type(data, kind))
    say_left_out(dataset)
    session = open_checkpoint(checkpoint, parse_size(options["size"]), options["threads"], device=options["device"])
    info = session.info
    provenance = {
        "model": {"checkpoint_sha256": info.checkpoint_sha256, "input": [info.input.height, info.input.width]},
        "data": {"split": dataset.split, "images": len(dataset), "fingerprint": dataset.fingerprint()},
        "by": list(options["by"]),
        "views": [view.name for view in views],
        "budget": options["budget"],
        "emphasis": options["emphasis"],
    }
    return Look(session, dataset, views, options["budget"], LossConfig()), session, dataset, provenance


def _table(report: dict[str, Any], output: str) -> str:
    lines = [f"{'hardness':>8}  {'loss':>8}  {'disagr.':>8}  {'regret':>8}  image"]
    for row in report["images"][:10]:
        cells = [row["hardness"], *(row[name] for name in _SIGNALS)]
        lines.append("  ".join("       -" if cell is None else f"{cell:8.3f}" for cell in cells) + f"  {row['file_name']}")
    lines.append(f"{report['chosen']} of {len(report['images'])} images chosen; written: {output}")
    return "\n".join(lines)
