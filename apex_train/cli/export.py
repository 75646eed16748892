"""``apex-train export``: checkpoint -> one ONNX file, checked against torch before it appears."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from apex_runtime.cli.options import split_list
from apex_runtime.errors import UsageError
from apex_runtime.image_size import parse_size

if TYPE_CHECKING:
    import numpy as np

    from apex_runtime.model_info import Decode
    from apex_train.model.detector import ApexDetector

DEFAULT_SIZE = "1024"
_FROM_USER, _SHIPPED = 4, 2  # images that are read; every one costs six runs of both sides


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The ONNX file to write.")
@click.option("--size", default=DEFAULT_SIZE, show_default=True, help="Input size: one side, or height x width.")
@click.option(
    "--check-images",
    type=click.Path(path_type=Path),
    help="Real images (folder or file) to compare torch and ONNX Runtime on, beside random ones; at most 4 are read."
    "  [default: 2 of the shipped samples]",
)
@click.option(
    "--decode",
    type=click.Choice(["topk", "nms"]),
    default="topk",
    show_default=True,
    help="How the graph ends: the best one-to-one candidates, or NMS (IoU 0.6, within a class) on the one-to-many ones.",
)
@click.option(
    "--config", type=click.Path(path_type=Path), help="For weights without a configuration: the run's YAML file (tile, halo)."
)
@click.option(
    "--class-names", multiple=True, callback=split_list, help="For weights without a configuration: comma list, in order."
)
@click.option(
    "--strict/--no-strict",
    default=True,
    show_default=True,
    help="For weights without a configuration: refuse if some do not fit.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def export(
    checkpoint: Path,
    output: Path,
    size: str,
    check_images: Path | None,
    decode: Decode,
    config: Path | None,
    class_names: tuple[str, ...],
    strict: bool,
    as_json: bool,
) -> None:
    """Export CHECKPOINT (last.pt, best.pt, an epoch's, or the raw weights of one) to one ONNX file whose budget is an input.

    The file is checked (ONNX checker, shape inference, agreement of ONNX Runtime with torch at three budgets: one tile, half of
    them, all; a grid of one or two tiles has no more than that) before it appears under its name; when a check fails, nothing
    is written.

    Of both decodings inputs and outputs are the same; with nms, places that are not needed hold score 0 and label -1.

    \b
    Examples:
      apex-train export runs/a/best.pt -o model.onnx
      apex-train export runs/a/best.pt -o drone.onnx --size 384x1280 --check-images photos/
      apex-train export runs/a/best.pt -o nms.onnx --decode nms
      apex-train export weights.pt -o model.onnx --config runs/a/config.yaml --class-names roof,car
    """
    height, width = parse_size(size)
    from apex_train.checkpoint import file_sha256
    from apex_train.export.exporter import export_onnx

    model = _load(checkpoint, config, class_names, strict)
    if size == DEFAULT_SIZE and (trained := _trained_size(checkpoint)) not in (None, size):
        click.echo(f"note: trained at {trained}, exported at {size}; for the same: --size {trained}", err=True)
    images = _read_images(check_images, height, width, _FROM_USER) if check_images else _shipped_images(height, width)
    report = export_onnx(model, (height, width), output, file_sha256(checkpoint), images, decode)
    if as_json:
        click.echo(json.dumps(report.to_dict()))
        return
    shown = ", ".join(f"{name} {value:.1e}" for name, value in report.worst.items())
    click.echo(f"{report.path}: {report.bytes / 1e6:.1f} MB, {height}x{width}, {report.tiles} tiles, {report.seconds:.0f} s")
    click.echo(f"cost: {report.gflops.base:.2f} GFLOPs + {report.gflops.per_tile:.3f} per tile")
    click.echo(f"ONNX Runtime against torch at K = {', '.join(map(str, report.budgets))}: {shown}")


def _load(checkpoint: Path, config: Path | None, class_names: tuple[str, ...], strict: bool) -> ApexDetector:
    """Our own checkpoints know everything; of raw weights the user may say what they do not tell."""
    from apex_train.checkpoint import load_model
    from apex_train.config import load_config
    from apex_train.foreign import is_foreign, load_foreign

    if not is_foreign(checkpoint):
        if config is not None or class_names:
            raise UsageError(f"{checkpoint}: has a configuration of its own.", "Leave out --config and --class-names.")
        return load_model(checkpoint)
    section = load_config(config, {}).model if config is not None else None
    model, report = load_foreign(checkpoint, section, class_names, strict)
    taken = f"size {model.config.size}, tile {model.config.tile}, halo {model.config.halo}"
    click.echo(f"note: weights without a configuration, taken as {taken}; {report}", err=True)
    return model


def _trained_size(checkpoint: Path) -> str | None:
    """``train.size`` of the run that wrote the checkpoint; None where it does not say."""
    from apex_train.checkpoint import read_checkpoint
    from apex_train.foreign import is_foreign

    run = {} if is_foreign(checkpoint) else read_checkpoint(checkpoint).get("training") or {}
    size = run.get("config", {}).get("train", {}).get("size")
    return None if size is None else str(size)


def _shipped_images(height: int, width: int) -> list[np.ndarray]:
    from apex_runtime.parity.cases import sample_folder

    try:
        folder = sample_folder()
    except (UsageError, ModuleNotFoundError):
        click.echo("note: the sample images are not installed, checking on random ones only; real ones: --check-images", err=True)
        return []
    return _read_images(folder, height, width, _SHIPPED)


def _read_images(source: Path, height: int, width: int, at_most: int) -> list[np.ndarray]:
    from apex_runtime.data.image import decode_image
    from apex_runtime.data.sources import resolve_sources
    from apex_runtime.postprocess.letterbox import letterbox_image

    return [letterbox_image(decode_image(item.path), height, width)[0] for item in resolve_sources(str(source))[:at_most]]
