"""``apex-rt infer``: images and clips in, boxes, masks, annotated pictures and clips out."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apex_runtime.cli.infer_report import report
from apex_runtime.cli.interrupt import interruptible
from apex_runtime.cli.options import (
    FiniteRange,
    chosen_budgets,
    engine_options,
    json_option,
    not_empty,
    say_fallback,
    split_list,
    tiles_option,
)

if TYPE_CHECKING:
    from apex_runtime.data.sources import SourceItem
    from apex_runtime.model_info import ModelInfo
    from apex_runtime.pipeline.predictor import Predictor
    from apex_runtime.pipeline.stages import RunOptions
    from apex_runtime.routing.budget import Budget

_ON_INTERRUPT = "interrupted: finishing the batch; once more to leave at once"
_ONE_BY_ONE = "note: frames go one by one, each needs the tiles of the one before; --hysteresis 0 makes batches of them"


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
@click.option(
    "--budget", default="1.0", show_default=True, help="Tiles to look at closely: 16, 0.25, 25%, 1.0 (all), 2.5gflops, 8ms."
)
@tiles_option(multiple=False)
@click.option("--batch", default="auto", show_default=True, help="Images per call of the graph: a number, or auto.")
@engine_options
@click.option("--min-score", type=FiniteRange(0, 1), default=0.001, show_default=True, help="Weakest detection to keep.")
@click.option("--draw-score", type=FiniteRange(0, 1), default=0.3, show_default=True, help="Weakest detection to draw.")
@click.option("--classes", multiple=True, callback=split_list, help="Names of the classes to keep.  [default: all]")
@click.option("--max-detections", type=click.IntRange(min=1), help="Most detections per image.  [default: what the engine gives]")
@click.option(
    "--hysteresis",
    type=FiniteRange(0, 24),
    default=0.35,
    show_default=True,
    help="Clips: how much more useful another tile must be to replace one of the frame before; 0 is off.",
)
@click.option(
    "--window",
    default="auto",
    show_default=True,
    help="Cut images into windows: auto (larger than 1.5 times the engine's input), none, or HEIGHTxWIDTH in pixels.",
)
@click.option("--overlap", type=click.IntRange(min=0), help="Pixels that windows share.  [default: 128, at most half a window]")
@click.option(
    "--look", multiple=True, metavar="X,Y,W,H|FILE", help="Look closely here, as far as the budget goes. May be repeated."
)
@click.option("--ignore", multiple=True, metavar="X,Y,W,H|FILE", help="Leave this alone.")
@click.option(
    "--save",
    multiple=True,
    default=("annotated",),
    show_default=True,
    callback=split_list,
    help="Files beside results.json: annotated, yolo, masks, geojson, csv; or none.",
)
@click.option(
    "--video", "images_are_frames", is_flag=True, help="The images of a folder, sorted by name, are the frames of a clip."
)
@click.option("--fps", type=FiniteRange(0, 1000, min_open=True), help="Frames per second of --video.  [default: 25]")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run in the same folder.")
@click.option(
    "--on",
    metavar="ray[://ADDRESS]",
    help="Run as a job of Ray: ray (started here, ended with the job), ray://auto (the cluster of this node) or ray://HOST:6379.",
)
@click.option("--workers", type=click.IntRange(1, 100_000), help="With --on: engines at a time.  [default: as many as fit]")
@click.option("--block", type=click.IntRange(1, 10_000), help="With --on: images a worker takes at a time.  [default: up to 64]")
@click.option("--shards", type=click.Choice(["jsonl", "parquet"]), help="With --on: format of the shards.  [default: jsonl]")
@json_option
def infer(
    source: str,
    engine: str | None,
    output: str,
    budget: str,
    tiles: str | None,
    batch: str,
    threads: int | None,
    device: str,
    policy: str,
    min_score: float,
    draw_score: float,
    classes: tuple[str, ...],
    max_detections: int | None,
    hysteresis: float,
    window: str,
    overlap: int | None,
    look: tuple[str, ...],
    ignore: tuple[str, ...],
    save: tuple[str, ...],
    images_are_frames: bool,
    fps: float | None,
    resume: bool,
    on: str | None,
    workers: int | None,
    block: int | None,
    shards: str | None,
    as_json: bool,
) -> None:
    """Detect and segment the objects in SOURCE: an image or a clip, a folder of them, a quoted pattern, a .txt list of paths, or
    - for such a list on standard input.

    Writes results.json (COCO form), results.jsonl, failures.json, summary.json and what --save names to the output folder. What
    cannot be read is named in failures.json and skipped; the exit code is then 1. A finished run in that folder is replaced; an
    unfinished one (go on with --resume) or other files of these names are refused and left alone.

    An image larger than 1.5 times the engine's input is cut into windows that share one budget. --look and --ignore take a region
    in pixels, a JSON file {"image.png": [[x, y, w, h]]} or a GeoJSON file, and may be repeated.

    With --on the images go in blocks to workers of Ray (extra ray), which may be on many machines, with the same results;
    --threads are those of each worker. SOURCE may then be a URL of a store (s3://...) or a .parquet file with a column "path" or
    "url" too. What one block gave lies in the folder shards as well.

    \b
    Examples:
      apex-rt infer scan.png --output out/
      apex-rt infer images/ --engine bundle/ --budget 0.25 --output out/
      apex-rt infer images/ --engine two-levels.onnx --tiles 16,12 --output out/
      apex-rt infer clip.mp4 --budget 0.25 --output out/
      apex-rt infer frames/ --video --fps 24 --budget 0.25 --output out/
      apex-rt infer roofs.tif --window 1024x1024 --overlap 128 --save annotated,geojson --output out/
      apex-rt infer yard.png --look 100,80,400,300 --ignore 0,0,1920,60 --budget 0.25 --output out/
      find . -name '*.png' | apex-rt infer - --save yolo,csv --output out/
      apex-rt infer 'scans/**/*.tif' --engine bundle/ --budget 16 --batch 4 --output out/ --resume
      apex-rt infer images/ --on ray --workers 4 --save none --output out/
      apex-rt infer s3://bucket/scans --on ray://auto --device cuda --shards parquet --save none --output out/
    """
    from apex_runtime.bundle.load import open_engine
    from apex_runtime.cli.infer_ray import Asked, refuse_ray_options, run_job
    from apex_runtime.data.regions import check_regions, parse_regions
    from apex_runtime.engine import default_engine
    from apex_runtime.offline.block_run import engine_facts
    from apex_runtime.outputs.formats import parse_formats
    from apex_runtime.pipeline.batching import parse_batch
    from apex_runtime.pipeline.predictor import Predictor, checked_filter
    from apex_runtime.pipeline.stages import RunOptions
    from apex_runtime.routing.planner import planned
    from apex_runtime.windows.plan import parse_windowing

    (parsed,) = chosen_budgets([budget], [] if tiles is None else [tiles])
    regions = parse_regions(look, "--look"), parse_regions(ignore, "--ignore")
    kinds = parse_formats(save)
    chosen_engine = engine or default_engine()

    def options_for(info: ModelInfo, budget: Budget, images: int = 1, lanes: int = 1) -> RunOptions:
        _check_budget(budget, info)
        wanted, windowing = checked_filter(info, min_score, max_detections, classes), parse_windowing(window, overlap, info.input)
        return RunOptions(budget, wanted, draw_score, images, hysteresis, kinds, windowing, *regions, lanes)

    def find() -> list[SourceItem]:
        return _sources(source, Path(output), images_are_frames, fps)

    if on is not None:
        asked = Asked(
            source, Path(chosen_engine), Path(output), parsed, batch, threads, device, policy, on, workers, block, shards
        )
        summary = run_job(asked, find, options_for, partial(_settings, classes=classes), resume)
    else:
        refuse_ray_options(workers, block, shards)
        items = find()
        check_regions({item.clip.name if item.clip else item.relative for item in items}, *regions)
        clips = any(item.clip for item in items)
        many = len(items) > 1 and not clips and parsed.kind != "ms"
        opened = open_engine(chosen_engine, threads, device, policy, many=many)
        say_fallback(opened)
        images = parse_batch(batch, opened.executed)
        options = options_for(
            opened.session.info, planned(parsed, opened, threads, images, device, chosen_engine), images, opened.lanes
        )
        if clips and images > 1 and hysteresis > 0:
            click.echo(_ONE_BY_ONE, err=True)
        settings = _settings(opened.digest, options, parsed, classes, clips)
        summary = _run(Predictor(opened.session), items, Path(output), options, settings, engine_facts(opened, threads), resume)
    click.echo(json.dumps(summary, indent=2) if as_json else report(summary, Path(output), kinds))
    if summary["images"]["failed"] or summary["status"] != "done":
        raise SystemExit(1)


def _check_budget(budget: Budget, info: ModelInfo) -> None:
    """A budget that this engine cannot meet fails before the first image. Raises UsageError."""
    import numpy as np

    from apex_runtime.routing.split import plan_tiles

    plan_tiles(budget, np.ones(info.tiles.count, bool), info)


def _sources(source: str, output: Path, images_are_frames: bool, fps: float | None) -> list[SourceItem]:
    """The images and frames; pictures of an earlier run into a folder below the source are none of them."""
    from apex_runtime.data.sources import resolve_sources
    from apex_runtime.errors import UsageError
    from apex_runtime.outputs.formats import FOLDERS
    from apex_runtime.video.plan import MEDIA, plan_frames

    if fps is not None and not images_are_frames:
        raise UsageError("--fps: only frames that are images lack a rate of their own.", "Add --video, or leave --fps out.")
    ours = [(output / folder).resolve() for folder in FOLDERS.values()]
    found = resolve_sources(source, MEDIA)
    items = [item for item in found if not any(item.path.resolve().is_relative_to(folder) for folder in ours)]
    if not items:
        raise UsageError(f"{source}: only pictures of an earlier run in here.", "Name the folder of the images.")
    return plan_frames(items, images_are_frames, fps)


def _settings(digest: str, options: RunOptions, asked: Budget, classes: tuple[str, ...], clips: bool = False) -> dict[str, Any]:
    """What decides the results: a run may be resumed only with the same. ``digest``: of the model; ``asked``: the budget before
    a deadline became tiles."""
    windowing = options.windowing
    return {
        "model_sha256": digest,
        "budget": options.budget.asked,
        "min_score": options.wanted.min_score,
        "draw_score": options.draw_score,
        "classes": sorted(classes),
        "max_detections": options.wanted.max_detections,
        "save": sorted(options.save),
        "look": list(options.look.asked),
        "ignore": list(options.ignore.asked),
        "hysteresis": options.hysteresis if clips else None,
        "deadline_tiles": int(options.budget.value) if asked.kind == "ms" else None,
        "window": None if windowing is None else [windowing.asked, windowing.overlap],
    }


def _run(
    predictor: Predictor,
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

    folder = OutputFolder(output, predictor.info.classes)
    with counter(len(items), "infer") as progress, interruptible(_ON_INTERRUPT) as stop:
        return Run(predictor, items, folder, options, stop, progress).execute(settings, facts, resume)
