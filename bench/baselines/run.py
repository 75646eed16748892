"""Train a baseline, or ours, for so many minutes of one processor, and let it answer for the test images.

    python bench/baselines/run.py ours DATA --cpu-minutes 12 --size 512 --output runs/ours-0
    python bench/baselines/run.py yolo-seg DATA --program OTHER/bin/yolo --cpu-minutes 12 --size 512 --output runs/yolo-0
    python bench/baselines/run.py detr DATA --python OTHER/bin/python --cpu-minutes 12 --size 512 --output runs/detr-0

All train on the split train, from random weights unless --weights names some, and their ONNX files are run by the same code.
``compare.py`` puts the folders into one table. docs/baselines.md says how the environments are made.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

sys.path[:0] = [str(Path(__file__).resolve().parents[folder]) for folder in (1, 2)]

from evidence import circumstances  # noqa: E402

from apex_runtime.bundle.hashing import sha256_of  # noqa: E402
from apex_runtime.data.open import open_dataset  # noqa: E402
from apex_runtime.errors import ApexError  # noqa: E402
from apex_runtime.machine import processor  # noqa: E402
from baselines.answers import RUN_NAME, answers_of, write_run  # noqa: E402
from baselines.trained import Task, Trained  # noqa: E402

SHARED = (
    click.argument("data", type=click.Path(exists=True, path_type=Path)),
    click.option("--cpu-minutes", required=True, type=click.FloatRange(0, min_open=True), help="Of one processor, for training."),
    click.option("--size", default=512, show_default=True, type=click.IntRange(64), help="Side of the input, in pixels."),
    click.option("--seed", default=0, show_default=True, type=click.IntRange(0)),
    click.option("--threads", default=1, show_default=True, type=click.IntRange(1)),
    click.option("--weights", help="To begin with: a file, for detr a folder or a name of the hub.  [default: random]"),
    click.option("--split", default="test", show_default=True, help="Whose images are answered for."),
    click.option("--slice", "side", type=click.IntRange(16), help="Also answer window by window: their side in pixels, as SAHI."),
    click.option("--output", required=True, type=click.Path(path_type=Path), help="A folder per run."),
)


@click.group()
def main() -> None:
    """Equal minutes, equal data, equal judges."""


def shared(command: Callable[..., None]) -> Callable[..., None]:
    """The options that all have."""
    for option in reversed(SHARED):
        command = option(command)
    return command


@main.command()
@shared
@click.option("--recipe", type=click.Path(exists=True, path_type=Path), help="[default: bench/baselines/ours.yaml]")
@click.option("--decode", type=click.Choice(["topk", "nms"]), default="nms", show_default=True, help="How the graph ends.")
@click.option("--budget", "budgets", multiple=True, default=("0.25", "1.0"), show_default=True)
def ours(recipe: Path | None, decode: str, budgets: tuple[str, ...], **asked: Any) -> None:
    """Our detector, by apex-train."""
    from baselines.ours import RECIPE, train

    _run("ours", lambda task: train(task, recipe or RECIPE, decode), budgets, **asked)


@main.command("yolo-seg")
@shared
@click.option("--program", required=True, type=click.Path(exists=True, path_type=Path), help="yolo of the other environment.")
def yolo_seg(program: Path, **asked: Any) -> None:
    """YOLO11n-seg, by the program of ultralytics."""
    from baselines.yolo import train

    _run("yolo-seg", lambda task: train(task, program), (), **asked)


@main.command()
@shared
@click.option("--python", default=sys.executable, type=click.Path(exists=True, path_type=Path), help="One with transformers.")
def detr(python: Path, **asked: Any) -> None:
    """A small Mask2Former, by transformers."""
    from baselines.detr import train

    _run("detr", lambda task: train(task, python), (), **asked)


def _run(who: str, train: Callable[[Task], Trained], budgets: tuple[str, ...], **asked: Any) -> None:
    data, output, limit = asked["data"], asked["output"], 60 * asked["cpu_minutes"]
    if (output / RUN_NAME).is_file():
        click.echo(f"{output}: is complete")
        return
    output.mkdir(parents=True, exist_ok=True)
    try:
        test = open_dataset(data, asked["split"])  # now, not after the training
        names = ("size", "seed", "threads", "weights", "side")
        trained = train(Task(data, output, limit, **{name: asked[name] for name in names}))
        facts = _facts(who, trained, asked)
        write_run(output, facts, answers_of(trained.detector, test, asked["threads"], budgets, asked["side"]))
    except ApexError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{output}: {trained.cpu_seconds / 60:.2f} of {limit / 60:g} minutes of one processor")


def _facts(who: str, trained: Trained, asked: dict[str, Any]) -> dict[str, Any]:
    """``training``: the terms, which have to be equal in a table."""
    dataset = open_dataset(asked["data"], "train")
    return {
        "who": who,
        "seed": asked["seed"],
        "training": {
            "data": dataset.fingerprint(),
            "images": len(dataset),
            "size": asked["size"],
            "limit_seconds": 60 * asked["cpu_minutes"],
            "threads": asked["threads"],
            "weights": asked["weights"] or "random",
            "processor": processor(),
        },
        "cpu_seconds": trained.cpu_seconds,
        "model": {"file": trained.model.name, "sha256": sha256_of(trained.model), "bytes": trained.model.stat().st_size},
        "detector": trained.detector.name,
        **trained.facts,
        "circumstances": circumstances() | {"apex-x": importlib.metadata.version("apex-x")},
    }


if __name__ == "__main__":
    main()
