"""A job: the images of a source through a pool of workers into the same files that ``apex-rt infer`` writes, and shards."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from apex_runtime.offline.block_run import Work
from apex_runtime.offline.blocks import Block, Image, plan_blocks
from apex_runtime.offline.cluster import Pool
from apex_runtime.offline.merge import merge
from apex_runtime.offline.outcome import Outcome
from apex_runtime.offline.parcel import Parcel, Passport
from apex_runtime.offline.rounds import Answers, all_answers, ray_answers
from apex_runtime.offline.shards import Shard, ShardStore
from apex_runtime.offline.worker import PACKAGE
from apex_runtime.outputs.formats import CSV, GEOJSON, TABLE
from apex_runtime.outputs.table import write_table
from apex_runtime.pipeline.results import JOURNAL, OutputFolder, read_journal
from apex_runtime.pipeline.totals import Counts, Totals, run_summary

Progress = Callable[[int, int], None]  # done, failed: images so far


@dataclass(frozen=True)
class Plan:
    """A job before it starts. ``block``: images of a block, None for a number that fits; ``shards``: their format; ``settings``:
    what decides the results, as in summary.json."""

    images: Sequence[Image]
    work: Work
    output: Path
    settings: dict[str, Any]
    block: int | None = None
    shards: str = "jsonl"


class Job:
    """One job. Use it once: ``Job(...).execute()``."""

    def __init__(
        self, plan: Plan, passport: Passport, stop: threading.Event | None = None, progress: Progress | None = None
    ) -> None:
        self._plan = plan
        self._ids = {image.name: image.number for image in plan.images}
        self._folder = OutputFolder(plan.output, passport.info.classes)
        self._store = ShardStore(plan.output, plan.shards)
        self._stop = stop or threading.Event()
        self._progress = progress or (lambda _done, _failed: None)
        self._shards: dict[str, Shard] = {}
        self._facts: dict[str, Any] = {}
        self._seconds = {"first": 0.0, "store": 0.0, "merge": 0.0}

    def execute(self, answers: Answers, pool: Pool, resume: bool = False) -> dict[str, Any]:
        """Do it; the summary, which is also written. ``answers``: what does the blocks; ``pool``: how many do at a time.

        Raises UsageError when the folder is somebody else's or cannot be gone on with, BackendError for an engine that cannot run
        on a worker, DataError when the shards do not add up, OSError when the output folder cannot be written. What was done
        stays done.
        """
        started, cpu = time.perf_counter(), time.process_time()
        merged = self._folder.start(self._ids, self._plan.settings, resume)
        before = merged | (self._take_over(merged) if resume else set())
        blocks = plan_blocks(self._plan.images, before, pool.workers, self._plan.block, self._plan.work.options.save)
        self._progress(len(before), 0)
        done, failed = len(before), 0
        for block, outcome in all_answers(blocks, answers, self._stop):
            self._seconds["first"] = self._seconds["first"] or time.perf_counter() - started
            shard = self._take(block, outcome)
            done, failed = done + len(shard.index.names), failed + len(shard.index.failures)
            self._progress(done, failed)
        facts = self._facts or {"backend": None, "threads": self._plan.work.threads, "lanes": 1}
        totals = self._merge(merged)
        ray = {"workers": pool.workers, "gpu": pool.gpu, "blocks": len(blocks), "shards": self._plan.shards}
        ray |= {"seconds": {name: round(value, 3) for name, value in self._seconds.items()}}
        ray |= {"driver_cpu_seconds": round(time.process_time() - cpu, 3)}
        return self._finish(merged, before, totals, facts | {"ray": ray}, started)

    def _take_over(self, merged: set[str]) -> set[str]:
        """The shards of an earlier try; the names of the images in them."""
        shards = [self._store.without_failures(shard) for shard in self._store.finished()]
        self._shards = {shard.key: shard for shard in shards}
        return {name for shard in shards for name in shard.index.names if name in self._ids} - merged

    def _take(self, block: Block, outcome: Outcome) -> Shard:
        started = time.perf_counter()
        shard = self._shards[block.key] = self._store.write(block, outcome)
        self._facts = self._facts or outcome.facts
        self._seconds["store"] += time.perf_counter() - started
        return shard

    def _merge(self, merged: set[str]) -> Totals:
        started, totals = time.perf_counter(), Totals()
        for record in read_journal(self._plan.output / JOURNAL):
            totals.add(record)
        shards = list(self._shards.values())
        merge(self._store, shards, self._folder, self._ids, merged, totals, complete=not self._stop.is_set())
        self._seconds["merge"] = time.perf_counter() - started
        return totals

    def _finish(
        self, merged: set[str], before: set[str], totals: Totals, facts: dict[str, Any], started: float
    ) -> dict[str, Any]:
        """Write the files that are made of the whole."""
        save, folder = self._plan.work.options.save, self._folder
        if CSV in save:
            write_table(self._plan.output / TABLE, folder.records(), folder.categories, self._plan.work.options.draw_score)
        if GEOJSON in save:
            facts |= {"images_without_place": sum(shard.index.without_place for shard in self._shards.values())}
        done = len({name for shard in self._shards.values() for name in shard.index.names if name in self._ids} | merged)
        counts = Counts(len(self._ids), done - len(before), len(folder.failures), len(before))
        summary = run_summary(counts, totals, time.perf_counter() - started, self._plan.settings, facts)
        folder.finish(summary)
        return summary


def run_on_ray(
    plan: Plan,
    parcel: Parcel,
    passport: Passport,
    pool: Pool,
    resume: bool = False,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """A job on the Ray that was joined (``cluster.joined``); its summary. Raises as ``Job.execute`` does."""
    answers = ray_answers(plan.work, parcel, passport.digest, version(PACKAGE), pool)
    return Job(plan, passport, stop, progress).execute(answers, pool, resume)
