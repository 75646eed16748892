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
from apex_runtime.cli.options import FiniteRange, json_option, not_empty, split_integers
from apex_runtime.errors import UsageError

if TYPE_CHECKING:
    from apex_runtime.backends.tensorrt_builder import Progress
    from apex_runtime.bundle.manifest import Backend, Manifest
    from apex_runtime.precision.request import Step

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
    type=click.Choice(["fp32", "fp16", "int8", "fp8"]),
    help="Number format of the graph; all but fp32 keep float32 where it matters, int8 and fp8 round the convolutions of both "
    "backbones.  [default: fp32]",
)
@click.option(
    "--profile",
    type=click.Choice(["quality", "balanced", "edge"]),
    help="In place of --precision: fp16; fp8 in the foveal stream and fp16 elsewhere; int8 in both backbones.",
)
@click.option(
    "--pin",
    multiple=True,
    metavar="REGEX",
    help="Regions and modules that stay float32, beside those that always do; may be repeated.",
)
@click.option(
    "--method",
    type=click.Choice(["minmax", "percentile", "entropy"]),
    help="int8, fp8: how the range of a tensor follows from its numbers.  [default: minmax]",
)
@click.option(
    "--max-drop",
    type=FiniteRange(min=0, max=100),
    metavar="POINTS",
    help="int8, fp8: round the regions that keep AP on the split val within so many points of fp32.",
)
@click.option(
    "--data",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Images that the ranges are taken from, a folder, file or pattern; or a COCO, YOLO or satellite set, whose split train "
    "is used, and test for the report.  [default: the shipped samples]",
)
@click.option(
    "--calibration-images",
    type=click.IntRange(min=1),
    help="Of so many images at most, evenly over the sorted list.  [default: 64]",
)
@click.option(
    "--calibration-cache",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the ranges are kept for the next build.  [default: in the user's cache folder]",
)
@click.option(
    "--report/--no-report",
    default=None,
    help="Compare the new graph with fp32: tiles, average precision, time on this CPU.  [default: report]",
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
    profile: str | None,
    pin: tuple[str, ...],
    method: str | None,
    max_drop: float | None,
    data: Path | None,
    calibration_images: int | None,
    calibration_cache: Path | None,
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
      apex-rt build-engine model.onnx --precision int8 --data nuclei/ -o bundle8/
      apex-rt build-engine model.onnx --profile balanced --backend tensorrt-rtx --data nuclei/ --pin project -o bundle-rtx/
      apex-rt build-engine model.onnx --precision int8 --max-drop 0.5 --data nuclei/ -o bundle8/
      apex-rt build-engine model.onnx --recipe rtx-desktop -o bundle-rtx/
      apex-rt build-engine model.onnx --recipe recipe.yaml -o bundle/
    """
    from apex_runtime.bundle.build import build_bundle
    from apex_runtime.bundle.load import CHECKPOINT_SUFFIXES
    from apex_runtime.bundle.manifest import PRECISION_NAME
    from apex_runtime.bundle.precision import read_precision
    from apex_runtime.bundle.recipe import load_recipe
    from apex_runtime.cli import against_fp32, sensitivity_table

    if Path(model).suffix.lower() in CHECKPOINT_SUFFIXES:
        raise UsageError(f"{model}: a checkpoint; bundles need an exported model.", f"apex-train export {model} -o model.onnx")
    given: dict[str, Any] = {
        "backend": backend,
        "compute_capability": compute_capability or None,
        "max_batch": max_batch,
        "plugins": plugins,
    }
    given |= {"precision": precision, "profile": profile, "pin": pin or None, "method": method, "max_drop": max_drop}
    given |= {"calibration_images": calibration_images, "report": report}
    flags = {name: value for name, value in given.items() if value is not None}
    if profile and not precision:  # a flag wins over the recipe, whichever of the two the recipe names
        flags["precision"] = "fp32"
    if precision and not profile:
        flags["profile"] = None
    if backend in ("ort-cpu", "ort-cuda"):
        flags.setdefault("compute_capability", ())
    asked = load_recipe(recipe, flags)
    request = asked.precision_request(data, calibration_cache)
    if request.wanted == "fp32" and (calibration_images is not None or report):
        option = "--report" if report else "--calibration-images"
        raise UsageError(f"{option} has no meaning for fp32.", "Leave it out, or give --precision fp16.")
    if asked.backend in ("ort-cpu", "ort-cuda") and max_batch is not None:
        raise UsageError(f"--max-batch has no meaning for {asked.backend}.", "Leave it out, or use --backend tensorrt-rtx.")
    log = (lambda line: click.echo(line, err=True)) if verbose else None
    with _progress() as (progress, step):
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
            precision=request,
            step=step,
        )
    against, sensitivity = read_precision(Path(output) / PRECISION_NAME)
    if as_json:
        said = {"bundle": output, "precision": request.wanted, "manifest": manifest.model_dump(mode="json")}
        chosen = {"sensitivity": sensitivity.model_dump(mode="json")} if sensitivity else {}
        click.echo(json.dumps(said | {"against_fp32": against.to_record()} | chosen, indent=2))
    else:
        ranking = sensitivity_table.table(sensitivity) if sensitivity else ()
        click.echo("\n".join((*_lines(manifest, output), *ranking, *against_fp32.table(against))))


@contextmanager
def _progress() -> Iterator[tuple[Progress, Step]]:
    """A bar per plan and for whatever else has steps on a terminal, a line elsewhere; on standard error. Ctrl-C ends the build
    without a trace."""
    with interruptible("interrupted: leaving at the next step") as stop, _display() as show:

        def progress(capability: int, _stage: str, done: int, total: int) -> bool:
            return step(f"building {_plan_name(capability)}", done, total)

        def step(title: str, done: int, total: int) -> bool:
            show(title, done, total)
            return not stop.is_set()

        yield progress, step


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
    made_by = f"{manifest.backend} {manifest.backend_version}, {manifest.profile or manifest.precision}"
    lines = [f"{output}: {made_by}, {manifest.build.seconds:.1f} s"]
    lines += [f"  {item.path:<16}{item.bytes / 1e6:8.2f} MB  sha256 {item.sha256[:12]}" for item in manifest.artefacts]
    if manifest.backend == "tensorrt":
        lines += [f"  {plugin.name:<18}{_COMPUTED_BY[plugin.implementation]}" for plugin in manifest.plugins]
    if manifest.backend != "ort-cpu":
        lines.append(f"it runs on a GPU; on this CPU: --engine {Path(output) / 'model.onnx'}")
    return lines
