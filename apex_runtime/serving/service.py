"""A served engine: opened and warmed up in a thread, asked through a bounded queue, counted, and drained when it goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from apex_runtime.backends.reasons import REMEDIES, ReasonCode
from apex_runtime.errors import ApexError, BackendError, UsageError
from apex_runtime.machine import usable_cpus
from apex_runtime.routing.budget import Budget, parse_budget
from apex_runtime.routing.planner import planned
from apex_runtime.serving.answer import answer_of, check_outputs
from apex_runtime.serving.metrics import ServingMetrics, serving_metrics
from apex_runtime.serving.refusals import Outcome, Refusal, invalid
from apex_runtime.serving.request import DetectionRequest, read_timeout
from apex_runtime.serving.settings import ServingSettings
from apex_runtime.serving.work_queue import WorkQueue

if TYPE_CHECKING:
    from apex_runtime.engine import Engine

Answer = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Service:
    """One engine for many requests. ``name`` labels its metrics; ``overload``: what a request gets at most while many wait."""

    name: str
    engine: Engine
    settings: ServingSettings
    queue: WorkQueue
    metrics: ServingMetrics
    overload: Budget | None = None

    @classmethod
    async def open(cls, name: str, bundle: Path, settings: ServingSettings) -> Service:
        """Verify and load a bundle and answer one image, so that what is ready has worked. The event loop goes on meanwhile.

        Raises UsageError, ModelError, BundleError, BackendError.
        """
        engine, overload = await asyncio.to_thread(_warm_engine, bundle, settings)
        queue = WorkQueue(settings.workers or usable_cpus(), settings.queue)
        service = cls(name, engine, settings, queue, serving_metrics(), overload)
        service.metrics.began(name, service.digest, queue)
        return service

    @property
    def digest(self) -> str:
        """SHA-256 of the model file."""
        return self.engine.opened.digest

    async def answer(self, read: Callable[[], DetectionRequest], wanted: Collection[str], timeout: Any = None) -> Answer:
        """The ``wanted`` outputs of the request that ``read`` finds, in a thread. ``timeout``: the parameter of the request.

        Raises Refusal, and counts how it ended.
        """
        arrived = perf_counter()
        outcome = Outcome.FAILED
        try:
            check_outputs(wanted)
            until = asyncio.get_running_loop().time() + read_timeout(timeout, self.settings.timeout_ms)
            found, overloaded = await self.queue.run(lambda: self._compute(read, wanted), until)
            outcome = Outcome.OK
            self.metrics.overload.labels(self.name).inc(overloaded)
            self.metrics.total.labels(self.name).observe(perf_counter() - arrived)
            return found
        except Refusal as refusal:
            outcome = refusal.outcome
            raise
        except asyncio.CancelledError:
            outcome = Outcome.CANCELLED
            raise
        finally:
            self.metrics.requests.labels(self.name, outcome.label).inc()

    async def close(self) -> None:
        """Answer what was accepted, take nothing new, and let the engine go."""
        await self.queue.close()
        self.metrics.ended(self.name, self.digest)

    def _compute(self, read: Callable[[], DetectionRequest], wanted: Collection[str]) -> tuple[Answer, bool]:
        """The outputs, and whether the overload budget was in force; it need not have taken tiles away.

        What waits is counted when this thread begins: of a burst, those that came in between are in it.
        """
        settings = self.settings
        overload = self.overload if self.queue.waiting >= settings.overload_waiting else None
        request = read()
        started = perf_counter()
        try:
            result = self.engine.predict_one(
                request.pixels(settings.max_pixels),
                request.budget if overload is None else request.budget.at_most(overload),
                settings.min_score,
                settings.max_detections,
                settings.classes,
            )
            found = answer_of(result, self.engine.info, wanted)
        except UsageError as error:  # a budget that this engine cannot mean
            raise _of_a_client(error) from error
        except BackendError as error:
            raise Refusal(Outcome.FAILED, error.message, error.remedy) from error
        self.metrics.compute.labels(self.name).observe(perf_counter() - started)
        self.metrics.tiles.labels(self.name).observe(result.budget.spent)
        return found, overload is not None


def _of_a_client(error: UsageError) -> Refusal:
    """A refusal of the engine for who sent the request, who can run no command here and need not know where the bundle lies."""
    if error.code == ReasonCode.LATENCY_TABLE_MISSING:
        return invalid(
            "budget: there is no latency table on this server for a deadline.", REMEDIES[ReasonCode.LATENCY_TABLE_MISSING]
        )
    return invalid(error.message, error.remedy)


def _warm_engine(bundle: Path, settings: ServingSettings) -> tuple[Engine, Budget | None]:
    """An engine that has answered an image of its own size under the budgets that requests get, and that of an overload.

    The latter is planned once: what it means is not to change, or be found to mean nothing, in the middle of one.
    """
    from apex_runtime.engine import load

    engine = load(bundle, settings.threads, settings.device)
    size = engine.info.input
    image = np.random.default_rng(0).integers(0, 256, (size.height, size.width, 3), np.uint8)
    overload = _overload_budget(engine, bundle, settings)
    try:
        for budget in filter(None, (parse_budget(settings.budget), overload)):
            result = engine.predict_one(image, budget, settings.min_score, settings.max_detections, settings.classes)
            answer_of(result, engine.info)
    except ApexError as error:
        raise type(error)(f"{bundle}: the first image failed: {error.message}", error.remedy, code=error.code) from error
    return engine, overload


def _overload_budget(engine: Engine, bundle: Path, settings: ServingSettings) -> Budget | None:
    """The budget of an overload, a deadline as tiles. Raises UsageError when this engine cannot meet it."""
    if settings.overload_budget is None:
        return None
    asked = parse_budget(settings.overload_budget)
    try:
        budget = planned(asked, engine.opened, settings.threads, 1, settings.device, bundle)
        count = engine.info.tiles.count
        budget.tiles_for(count, count, engine.info)
    except UsageError as error:
        raise UsageError(f"{bundle}: overload_budget: {error.message}", error.remedy, code=error.code) from error
    return budget
