"""Blocks through a pool of workers, until every block has an answer: lost workers, and images that kill them, included.

Ray Data starts a worker that died again, and gives it the block another ``RETRIES`` times. A block that was lost even so is done
once more image by image, one at a time for each worker, so that only what kills it is lost: that image gets a failure.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from types import ModuleType
from typing import Any

from apex_runtime.errors import BackendError
from apex_runtime.offline.block_run import Work
from apex_runtime.offline.blocks import Block
from apex_runtime.offline.cluster import Pool, ray_modules
from apex_runtime.offline.outcome import Outcome
from apex_runtime.offline.parcel import Parcel
from apex_runtime.pipeline.results import Failure

RETRIES = 2  # of a block whose worker died
_IN_FLIGHT = 2  # blocks sent to a worker: the next one is there when it needs it
LOST = "worker_lost"

Answers = Callable[[Sequence[Block], int], Generator[Outcome, None, None]]  # blocks, and how many a worker holds at a time


def all_answers(blocks: Sequence[Block], answers: Answers, stop: threading.Event) -> Iterator[tuple[Block, Outcome]]:
    """Every block, or each image of it by itself, with its outcome; less after ``stop``. Raises BackendError for an outcome that
    is an error: it concerns more than one image."""
    lost: list[Block] = []
    for block, outcome in _round(blocks, answers, _IN_FLIGHT, lost, stop):
        yield block, outcome
    singles = [single for block in lost for single in block.singles()]
    killers: list[Block] = []
    yield from _round(singles, answers, 1, killers, stop)
    for block in killers:
        yield block, _lost(block)


def _round(
    blocks: Sequence[Block], answers: Answers, in_flight: int, lost: list[Block], stop: threading.Event
) -> Iterator[tuple[Block, Outcome]]:
    """What comes back of one pass; unless it was stopped, ``lost`` has the blocks that did not."""
    waiting = {block.key: block for block in blocks}
    if not blocks:
        return
    with closing(answers(blocks, in_flight)) as outcomes:
        for outcome in outcomes:
            if outcome.error:
                raise BackendError(outcome.error, outcome.remedy)
            block = waiting.pop(outcome.key, None)
            if block is not None:
                yield block, outcome
            if stop.is_set():
                return
    lost += waiting.values()


def _lost(block: Block) -> Outcome:
    reason = f"the worker died each time it had this image, {1 + RETRIES} times."
    remedy = "Look at the image, at the memory of the workers, and at the log of Ray; then run the command with --resume."
    return Outcome(block.key, failures=tuple(Failure(image.name, reason, remedy, LOST) for image in block.images))


def ray_answers(work: Work, parcel: Parcel, digest: str, release: str, pool: Pool, worker: type[Any] | None = None) -> Answers:
    """The pool of workers as a job of Ray Data. The engine lies in Ray's store until the job ends. ``worker``: a class in the
    place of ``BlockWorker``, to measure what remains without work."""
    ray = ray_modules()
    reference = ray.put(parcel)

    def answers(blocks: Sequence[Block], in_flight: int) -> Generator[Outcome, None, None]:
        with _settings(ray):
            size = min(pool.workers, len(blocks))
            rows = [{"block": block.to_json()} for block in blocks]
            dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
                worker or _worker_class(),
                fn_constructor_args=(work, [reference], digest, release),
                batch_size=1,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=in_flight),
                num_cpus=pool.threads,
                **({"num_gpus": 1} if pool.gpu else {}),
                max_restarts=-1,
                max_task_retries=RETRIES,
            )
            try:
                for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                    yield from Outcome.from_table(table)
            except Exception as error:  # of Ray: its head is gone, a worker cannot even be started
                cause = str(error).strip().splitlines()
                remedy = "Look at the log of Ray; what is done is kept: go on with --resume."
                raise BackendError(f"Ray ended the job: {cause[-1] if cause else type(error).__name__}", remedy) from error

    return answers


@contextmanager
def _settings(ray: ModuleType) -> Iterator[None]:
    """Lost blocks do not end the job, and what Ray Data says of its progress goes to its log alone: the command has its own."""
    context = ray.data.DataContext.get_current().copy()
    context.max_errored_blocks = -1
    context.enable_progress_bars = context.print_on_execution_start = False
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.CRITICAL)
    with ray.data.DataContext.current(context), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")  # its only way to say how often a block is tried
        yield


def _worker_class() -> type[Any]:
    from apex_runtime.offline.worker import BlockWorker

    return BlockWorker
