"""``apex-rt infer``: images and clips in, boxes, masks, annotated pictures and clips out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apex_runtime.cli.interrupt import interruptible
from apex_runtime.cli.options import chosen_budgets, engine_options, json_option, not_empty, split_list, tiles_option

if TYPE_CHECKING:
    from apex_runtime.bundle.load import Opened
    from apex_runtime.data.sources import SourceItem
    from apex_runtime.pipeline.stages import RunOptions

_ON_INTERRUPT = "interrupted: finishing the batch; once more to leave at once"


@click.command()
@click.argument("source")
@click.option(
    "--engine",
    type=click.Path(),
    callback=not_empty,
    help="Bundle folder, model.onnx or best.pt.  [default: the engine that comes along]",
)
@click.option(
    "--output", "-o", type=click.Path(file_okay=False), required=True, callback=not_empty, help="Folder for the results."
)
@click.option("--budget", default="1.0", show_default=True, help="Tiles to look at closely: 16, 0.25, 25%, 1.0 (all), 2.5gflops.")
@tiles_option(multiple=False)
@click.option("--batch", type=click.IntRange(1, 256), default=1, show_default=True, help="Images per call of the graph.")
@engine_options
@click.option("--min-score", type=click.FloatRange(0, 1), default=0.001, show_default=True, help="Weakest detection to keep.")
@click.option("--draw-score", type=click.FloatRange(0, 1), default=0.3, show_default=True, help="Weakest detection to draw.")
@click.option("--classes", multiple=True, callback=split_list, help="Names of the classes to keep.  [default: all]")
@click.option("--max-detections", type=click.IntRange(min=1), help="Most detections per image.  [default: what the engine gives]")
@click.option(
    "--hysteresis",
    type=click.FloatRange(0, 24),
    default=0.35,
    show_default=True,
    help="Clips: how much more useful another tile must be to replace one of the frame before; 0 is off.",
)
@click.option(
    "--video", "images_are_frames", is_flag=True, help="The images of a folder, sorted by name, are the frames of a clip."
)
@click.option("--fps", type=click.FloatRange(0, 1000, min_open=True), help="Frames per second of --video.  [default: 25]")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run in the same folder.")
@json_option
def infer(
    source: str,
    engine: str | None,
    output: str,
    budget: str,
    tiles: str | None,
    batch: int,
    threads: int | None,
    device: str,
    policy: str,
    min_score: float,
    draw_score: float,
    classes: tuple[str, ...],
    max_detections: int | None,
    hysteresis: float,
    images_are_frames: bool,
    fps: float | None,
    resume: bool,
    as_json: bool,
) -> None:
    """Detect and segment the objects in SOURCE: an image or a clip, a folder of them, or a quoted pattern.

    Writes results.json (COCO form), results.jsonl, failures.json, summary.json, annotated pictures and clips to the output
    folder. What cannot be read is named in failures.json and skipped; the exit code is then 1. A finished run in that folder
    is replaced; an unfinished one (go on with --resume) or other files of these names are refused and left alone.

    \b
    Examples:
      apex-rt infer scan.png --output out/
      apex-rt infer images/ --engine bundle/ --budget 0.25 --output out/
      apex-rt infer images/ --engine two-levels.onnx --tiles 16,12 --output out/
      apex-rt infer clip.mp4 --budget 0.25 --output out/
      apex-rt infer frames/ --video --fps 24 --budget 0.25 --output out/
      apex-rt infer 'scans/**/*.tif' --engine bundle/ --budget 16 --batch 4 --output out/ --resume
    """
    import numpy as np

    from apex_runtime.bundle.load import open_engine
    from apex_runtime.engine import default_engine
    from apex_runtime.pipeline.predictor import Predictor
    from apex_runtime.pipeline.stages import RunOptions
    from apex_runtime.routing.split import plan_tiles

    (parsed,) = chosen_budgets([budget], [] if tiles is None else [tiles])
    items = _sources(source, Path(output), images_are_frames, fps)
    clips = any(item.clip for item in items)
    opened = open_engine(engine or default_engine(), threads, device, policy)
    if opened.reason:
        click.echo(f"note: asked for {opened.requested}, running on {opened.executed} ({opened.reason})", err=True)
    predictor = Predictor(opened.session)
    info = predictor.info
    plan_tiles(parsed, np.ones(info.tiles.count, bool), info)  # a budget this engine cannot meet fails before the first image
    options = RunOptions(parsed, predictor.filter(min_score, max_detections, classes), draw_score, batch, hysteresis)
    if clips and batch > 1 and hysteresis > 0:
        click.echo(
            "note: frames go one by one, each needs the tiles of the one before; --hysteresis 0 makes batches of them", err=True
        )
    settings = _settings(opened, options, classes) | {"hysteresis": hysteresis if clips else None}
    summary = _run(predictor, items, Path(output), options, settings, _facts(opened, threads), resume)
    click.echo(json.dumps(summary, indent=2) if as_json else _report(summary, Path(output)))
    if summary["images"]["failed"] or summary["status"] != "done":
        raise SystemExit(1)


def _sources(source: str, output: Path, images_are_frames: bool, fps: float | None) -> list[SourceItem]:
    """The images and frames; pictures of an earlier run into a folder below the source are none of them."""
    from apex_runtime.data.sources import resolve_sources
    from apex_runtime.errors import UsageError
    from apex_runtime.pipeline.results import ANNOTATED
    from apex_runtime.video.plan import MEDIA, plan_frames

    if fps is not None and not images_are_frames:
        raise UsageError("--fps: only frames that are images lack a rate of their own.", "Add --video, or leave --fps out.")
    pictures = (output / ANNOTATED).resolve()
    items = [item for item in resolve_sources(source, MEDIA) if not item.path.resolve().is_relative_to(pictures)]
    if not items:
        raise UsageError(f"{source}: only annotated pictures of an earlier run in here.", "Name the folder of the images.")
    return plan_frames(items, images_are_frames, fps)


def _settings(opened: Opened, options: RunOptions, classes: tuple[str, ...]) -> dict[str, Any]:
    """What decides the results: a run may be resumed only with the same."""
    return {
        "model_sha256": opened.digest,
        "budget": options.budget.asked,
        "min_score": options.wanted.min_score,
        "draw_score": options.draw_score,
        "classes": sorted(classes),
        "max_detections": options.wanted.max_detections,
    }


def _facts(opened: Opened, threads: int | None) -> dict[str, Any]:
    backend = {"requested": opened.requested, "executed": opened.executed, "reason": opened.reason or None}
    return {"backend": backend, "threads": threads}


def _run(
    predictor: Any,
    items: list[SourceItem],
    output: Path,
    options: RunOptions,
    settings: dict[str, Any],
    facts: dict[str, Any],
    resume: bool,
) -> dict[str, Any]:
    from apex_runtime.cli.progress import counter
    from apex_runtime.pipeline.results import OutputFolder
    from apex_runtime.pipeline.runner import Run

    folder = OutputFolder(output, predictor.info.classes, predictor.info.max_detections)
    with counter(len(items), "infer") as progress, interruptible(_ON_INTERRUPT) as stop:
        return Run(predictor, items, folder, options, stop, progress).execute(settings, facts, resume)


def _report(summary: dict[str, Any], output: Path) -> str:
    images = summary["images"]
    counts = f"{images['done']} of {images['found']} images"
    resumed = f" ({images['resumed']} from before)" if images["resumed"] else ""
    failed = f", {images['failed']} failed (see {output / 'failures.json'})" if images["failed"] else ""
    lines = [f"{counts}{resumed}{failed}: {summary['detections']} detections in {summary['seconds']:.1f} s"]
    if summary["median_milliseconds"]:
        times = ", ".join(f"{name} {value:.1f}" for name, value in summary["median_milliseconds"].items())
        lines.append(f"milliseconds per image (median): {times}")
    if "video" in summary:
        lines.append(_steadiness(summary["video"]))
    lines.append(f"results: {output / 'results.json'}, pictures: {output / 'annotated'}")
    if summary["status"] != "done":
        lines.append("interrupted: the rest is done by the same command with --resume")
    return "\n".join(lines)


def _steadiness(video: dict[str, Any]) -> str:
    clips = "1 clip" if len(video["clips"]) == 1 else f"{len(video['clips'])} clips"
    rate = "" if video["flip_rate"] is None else f", {video['flip_rate']:.1%} of them not in the frame before (flip rate)"
    return f"{video['frames']} frames of {clips}: {video['mean_tiles']:.1f} tiles per frame{rate}"
