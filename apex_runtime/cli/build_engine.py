"""``apex-rt build-engine``: from an exported model to a bundle that a backend runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apex_runtime.cli.interrupt import interruptible
from apex_runtime.cli.options import json_option, not_empty, split_integers
from apex_runtime.errors import UsageError

if TYPE_CHECKING:
    from apex_runtime.backends.tensorrt_builder import Progress
    from apex_runtime.bundle.manifest import Backend, Manifest
    from apex_runtime.precision.ranges import GoOn

_COMPUTED_BY = {
    "body": "function body",
    "plan": "plugin, its kernel is in the plan",
    "registry": "plugin, which must be registered where the plan is loaded",
}


@click.command("build-engine")
@click.argument("model", type=click.Path())
@click.option(
    "--backend",
    type=click.Choice(["ort-cpu", "ort-cuda", "tensorrt", "tensorrt-rtx"]),
    help="What will run it.  [default: ort-cpu]",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(),
    required=True,
    callback=not_empty,
    help="Folder of the bundle; an older bundle there is replaced.",
)
@click.option(
    "--recipe",
    metavar="NAME|FILE",
    type=click.Path(path_type=Path),
    help="A shipped recipe, or a YAML file, that names the options below; flags win over it.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16"]),
    help="Number format of the graph; fp16 keeps float32 where it matters.  [default: fp32]",
)
@click.option(
    "--data",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="fp16: images whose numbers must fit, a folder, file or pattern; or a COCO, YOLO or satellite set, whose split train is "
    "used, and test for the report.  [default: the shipped samples]",
)
@click.option(
    "--calibration-images",
    type=click.IntRange(min=1),
    help="fp16: of so many images at most, evenly over the sorted list.  [default: 64]",
)
@click.option(
    "--report/--no-report",
    default=None,
    help="fp16: compare the new graph with fp32: tiles, average precision, time on this CPU.  [default: report]",
)
@click.option(
    "--compute-capability",
    multiple=True,
    callback=split_integers,
    metavar="CC[,CC]",
    help="tensorrt-rtx: one plan for each, 89 for sm_89.  [default: 75,86,89,120]",
)
@click.option("--max-batch", type=click.IntRange(1, 256), help="TensorRT: largest batch of a plan.  [default: 8]")
@click.option(
    "--timing-cache",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="tensorrt: where the timings of kernels are kept for the next build.  [default: in the user's cache folder]",
)
@click.option(
    "--plugins/--no-plugins",
    default=None,
    help="tensorrt: build every op from its function body, by no plugin.  [default: plugins]",
)
@click.option("--verbose", is_flag=True, help="Show the builder's own log.")
@json_option
def build_engine(
    model: str,
    backend: Backend | None,
    output: str,
    recipe: Path | None,
    precision: str | None,
    data: Path | None,
    calibration_images: int | None,
    report: bool | None,
    compute_capability: tuple[int, ...],
    max_batch: int | None,
    timing_cache: Path | None,
    plugins: bool | None,
    verbose: bool,
    as_json: bool,
) -> None:
    """Build an engine bundle from MODEL, an .onnx file of apex-train export.

    The bundle holds the model, a manifest with hashes, and for the TensorRT backends one plan per compute capability. TensorRT
    for RTX builds without a GPU; its two wheels are the extra rtx: pip install ".[rtx]" in a checkout.

    \b
    Examples:
      apex-rt build-engine model.onnx --backend ort-cpu -o bundle/
      apex-rt build-engine model.onnx --backend tensorrt-rtx --compute-capability 75,86,89,120 -o bundle-rtx/
      apex-rt build-engine model.onnx --precision fp16 --data images/ -o bundle16/
      apex-rt build-engine model.onnx --precision fp16 --data nuclei/ --calibration-images 32 -o bundle16/
      apex-rt build-engine model.onnx --recipe rtx-desktop -o bundle-rtx/
      apex-rt build-engine model.onnx --recipe recipe.yaml -o bundle/
    """
    from apex_runtime.bundle.build import build_bundle
    from apex_runtime.bundle.fp32_record import read_against
    from apex_runtime.bundle.load import CHECKPOINT_SUFFIXES
    from apex_runtime.bundle.manifest import PRECISION_NAME
    from apex_runtime.bundle.recipe import load_recipe
    from apex_runtime.cli.against_fp32 import table

    if Path(model).suffix.lower() in CHECKPOINT_SUFFIXES:
        raise UsageError(f"{model}: a checkpoint; bundles need an exported model.", f"apex-train export {model} -o model.onnx")
    given = {"backend": backend, "precision": precision, "compute_capability": compute_capability, "max_batch": max_batch}
    given |= {"calibration_images": calibration_images}
    switches = {"plugins": plugins, "report": report}
    flags = {name: value for name, value in given.items() if value} | {k: v for k, v in switches.items() if v is not None}
    asked = load_recipe(recipe, flags)
    if asked.precision == "fp32" and (calibration_images is not None or report):
        option = "--report" if report else "--calibration-images"
        raise UsageError(f"{option} has no meaning for fp32.", "Leave it out, or give --precision fp16.")
    if asked.backend in ("ort-cpu", "ort-cuda") and max_batch is not None:
        raise UsageError(f"--max-batch has no meaning for {asked.backend}.", "Leave it out, or use --backend tensorrt-rtx.")
    log = (lambda line: click.echo(line, err=True)) if verbose else None
    with _progress() as (progress, calibrating, comparing):
        manifest = build_bundle(
            model,
            asked.backend,
            output,
            compute_capabilities=asked.compute_capability,
            max_batch=asked.max_batch,
            progress=progress,
            log=log,
            timing_cache=timing_cache,
            note=lambda text: click.echo(f"note: {text}", err=True),
            plugins=asked.plugins,
            precision=asked.precision,
            data=data,
            calibration_images=asked.calibration_images,
            report=asked.report,
            calibrating=calibrating,
            comparing=comparing,
        )
    against = read_against(Path(output) / PRECISION_NAME)
    if as_json:
        said = {"bundle": output, "precision": asked.precision, "manifest": manifest.model_dump(mode="json")}
        click.echo(json.dumps(said | {"against_fp32": against.to_record()}, indent=2))
    else:
        click.echo("\n".join((*_lines(manifest, output), *table(against))))


@contextmanager
def _progress() -> Iterator[tuple[Progress, GoOn, GoOn]]:
    """A bar for the calibration, the comparison and per plan on a terminal, a line elsewhere; on standard error. Ctrl-C ends the
    build without a trace."""
    with interruptible("interrupted: leaving at the next step") as stop, _display() as show:

        def progress(capability: int, _stage: str, done: int, total: int) -> bool:
            show(f"building {_plan_name(capability)}", done, total)
            return not stop.is_set()

        def calibrating(done: int, total: int) -> bool:
            show(f"calibrating on {total} image(s)", done, total)
            return not stop.is_set()

        def comparing(done: int, total: int) -> bool:
            show("comparing with fp32", done, total)
            return not stop.is_set()

        yield progress, calibrating, comparing


@contextmanager
def _display() -> Iterator[Callable[[str, int, int], None]]:
    """Shows (what is done, steps done, steps in all)."""
    tasks: dict[str, Any] = {}
    if not sys.stderr.isatty():

        def announce(title: str, _done: int, _total: int) -> None:
            if title not in tasks:
                tasks[title] = True
                click.echo(title, err=True)

        yield announce
        return
    from rich.console import Console
    from rich.progress import Progress as Bars

    with Bars(console=Console(stderr=True)) as bars:

        def show(title: str, done: int, total: int) -> None:
            if title not in tasks:
                tasks[title] = bars.add_task(title, total=total)
            bars.update(tasks[title], completed=done)

        yield show


def _plan_name(capability: int) -> str:
    return f"the plan for sm_{capability}" if capability else "the plan for this machine's GPU"


def _lines(manifest: Manifest, output: str) -> list[str]:
    lines = [f"{output}: {manifest.backend} {manifest.backend_version}, {manifest.precision}, {manifest.build.seconds:.1f} s"]
    lines += [f"  {item.path:<16}{item.bytes / 1e6:8.2f} MB  sha256 {item.sha256[:12]}" for item in manifest.artefacts]
    if manifest.backend == "tensorrt":
        lines += [f"  {plugin.name:<18}{_COMPUTED_BY[plugin.implementation]}" for plugin in manifest.plugins]
    if manifest.backend != "ort-cpu":
        lines.append(f"it runs on a GPU; on this CPU: --engine {Path(output) / 'model.onnx'}")
    return lines
