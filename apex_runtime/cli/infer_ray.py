"""``apex-rt infer --on ray``: what cannot go on many machines is refused before anything starts; the rest is a job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apex_runtime.cli.interrupt import interruptible
from apex_runtime.errors import UsageError

if TYPE_CHECKING:
    from apex_runtime.data.sources import SourceItem
    from apex_runtime.model_info import ModelInfo
    from apex_runtime.offline.cluster import Pool
    from apex_runtime.pipeline.stages import RunOptions
    from apex_runtime.routing.budget import Budget

_ON_INTERRUPT = "interrupted: waiting for the next block; once more to leave at once"


@dataclass(frozen=True)
class Asked:
    """The options of the command that say where and how a job runs, as they were given."""

    source: str
    engine: Path
    output: Path
    budget: Budget
    batch: str
    threads: int | None
    device: str
    policy: str
    on: str
    workers: int | None
    block: int | None
    shards: str | None


def refuse_ray_options(workers: int | None, block: int | None, shards: str | None) -> None:
    """Options of a job without a job. Raises UsageError."""
    for option, value in (("--workers", workers), ("--block", block), ("--shards", shards)):
        if value is not None:
            raise UsageError(f"{option}: only a job of Ray has it.", f"Add --on ray, or leave {option} out.")


def run_job(
    asked: Asked,
    find: Callable[[], Sequence[SourceItem]],
    options_for: Callable[[ModelInfo, Budget], RunOptions],
    settings_for: Callable[[str, RunOptions, Budget], dict[str, Any]],
    resume: bool,
) -> dict[str, Any]:
    """The summary of the job. ``find``: the images of a local source; ``options_for`` and ``settings_for``: what is done with
    each image of an engine, and how the summary says it. Raises ApexError of every kind."""
    from apex_runtime.cli.progress import counter
    from apex_runtime.data.regions import check_regions
    from apex_runtime.offline.block_run import Work
    from apex_runtime.offline.cluster import joined
    from apex_runtime.offline.job import Plan, run_on_ray
    from apex_runtime.offline.parcel import pack
    from apex_runtime.offline.sources import images_of

    _check(asked)
    parcel, passport = pack(asked.engine)
    options = options_for(passport.info, asked.budget)
    images = images_of(asked.source, find)
    check_regions({image.name for image in images}, options.look, options.ignore)
    settings = settings_for(passport.digest, options, asked.budget)
    gpu = passport.needs_gpu or asked.device != "cpu"
    with joined(asked.on, asked.workers, asked.threads) as capacity:
        pool = capacity.pool(asked.workers, asked.threads, gpu)
        click.echo(_said(pool), err=True)
        work = Work(options, asked.batch, pool.threads, asked.device, asked.policy)
        plan = Plan(images, work, asked.output, settings, asked.block, asked.shards or "jsonl")
        with counter(len(images), "infer") as progress, interruptible(_ON_INTERRUPT) as stop:
            return run_on_ray(plan, parcel, passport, pool, resume, stop, progress)


def _check(asked: Asked) -> None:
    """What can be refused before the images are listed. Raises UsageError, MissingPackageError."""
    from apex_runtime.offline.cluster import check_address, ray_modules
    from apex_runtime.pipeline.batching import parse_batch

    check_address(asked.on)
    if asked.budget.kind == "ms":
        raise UsageError(
            f"--budget {asked.budget.asked}: a deadline is for one image on one machine that was measured.",
            "Give a number or a share of tiles with --on.",
        )
    if asked.device.startswith("cuda:"):
        raise UsageError(f"--device {asked.device}: Ray gives every worker a GPU of its own.", "Write --device cuda.")
    parse_batch(asked.batch, "ort-cpu")
    ray_modules()


def _said(pool: Pool) -> str:
    count = "1 worker" if pool.workers == 1 else f"{pool.workers} workers"
    return f"{count} of {pool.threads} thread(s){' and a GPU' if pool.gpu else ''} each"
