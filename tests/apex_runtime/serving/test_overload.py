"""Overload: what requests get while others wait, and what is found out before. An engine in this process, no server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apex_runtime.backends.session import in_all
from apex_runtime.engine import Engine
from apex_runtime.errors import ConfigError, UsageError
from apex_runtime.pipeline.predictor import prepare_image
from apex_runtime.routing.budget import parse_budget
from apex_runtime.routing.latency_table import LatencyTable, Point, TableKey, write_table
from apex_runtime.serving.refusals import Refusal
from apex_runtime.serving.request import DetectionRequest
from apex_runtime.serving.service import Service
from apex_runtime.serving.settings import ServingSettings, parse_settings

registry = pytest.importorskip("prometheus_client", reason="prometheus-client is not installed: the extra serve").REGISTRY

LONG = 60.0
IMAGE = np.full((128, 128, 3), 20, np.uint8)
WIDE = np.full((64, 128, 3), 20, np.uint8)  # half of it is padding: fewer tiles have content


def crowded(budget: str | None, waiting: int = 2) -> ServingSettings:
    return ServingSettings(workers=1, queue=8, overload_budget=budget, overload_waiting=waiting, timeout_ms=60_000)


async def spent(service: Service, *asked: tuple[np.ndarray, str]) -> list[int]:
    """Tiles of requests that come while one, the first, runs; that one begins alone and asks for all tiles."""
    began, go_on = threading.Event(), threading.Event()

    def held() -> DetectionRequest:
        began.set()
        assert go_on.wait(LONG)
        return DetectionRequest(IMAGE, parse_budget("1.0"))

    def call(read: Callable[[], DetectionRequest]) -> asyncio.Task[Any]:
        return asyncio.create_task(service.answer(read, ["spent"]))

    calls = [call(held)]
    await asyncio.to_thread(began.wait, LONG)
    calls += [call(lambda image=image, budget=budget: DetectionRequest(image, parse_budget(budget))) for image, budget in asked]
    while service.queue.waiting < len(asked):
        await asyncio.sleep(0)
    go_on.set()
    return [int(answer["spent"].item()) for answer in await asyncio.gather(*calls)]


def served(name: str, bundle: Path, settings: ServingSettings, *asked: tuple[np.ndarray, str]) -> list[int]:
    """``spent``, in a loop with a service of its own."""

    async def scenario() -> list[int]:
        service = await Service.open(name, bundle, settings)
        try:
            return await spent(service, *asked)
        finally:
            await service.close()

    return asyncio.run(asyncio.wait_for(scenario(), LONG))


def counted(name: str) -> float:
    return registry.get_sample_value("apex_overload_requests_total", {"model": name}) or 0.0


def test_what_begins_while_others_wait_gets_the_overload_budget_and_later_all_again(bundles: dict[int, Path]) -> None:
    found = served("overload-all", bundles[1], crowded("25%"), *[(IMAGE, "1.0")] * 5)
    assert found == [16, 4, 4, 4, 16, 16], "5 wait, and 4, 3, 2, 1, 0 when they begin"
    assert counted("overload-all") == 3


def test_a_smaller_budget_of_a_request_stays(bundles: dict[int, Path]) -> None:
    asked = [(IMAGE, "2"), (IMAGE, "0.125"), (IMAGE, "1.0"), (IMAGE, "3"), (IMAGE, "1.0")]
    assert served("overload-own", bundles[1], crowded("25%", waiting=1), *asked) == [16, 2, 2, 4, 3, 16]
    assert counted("overload-own") == 4, "the limit was in force for those too that asked for less"


def test_without_an_overload_budget_all_get_what_they_ask_for(bundles: dict[int, Path]) -> None:
    assert served("no-overload", bundles[1], crowded(None), *[(IMAGE, "1.0")] * 4) == [16] * 5
    assert counted("no-overload") == 0


def test_a_share_is_of_each_image(bundles: dict[int, Path], engine: Engine) -> None:
    n_content = in_all(prepare_image(WIDE, parse_budget("1.0"), engine.info).tiles)
    assert n_content < 16
    assert served("overload-share", bundles[1], crowded("50%", waiting=1), (WIDE, "1.0"), (WIDE, "1.0"))[1:] == [
        n_content // 2,
        n_content,
    ]


def test_who_is_refused_in_overload_is_not_counted_as_overloaded(bundles: dict[int, Path]) -> None:
    with pytest.raises(Refusal, match="latency table"):
        served("overload-bad", bundles[1], crowded("25%", waiting=1), (IMAGE, "8ms"), (IMAGE, "1.0"))
    assert counted("overload-bad") == 0


@pytest.mark.parametrize(("budget", "cause"), [("8ms", "no latency table for this engine"), ("1e-9gflops", "already costs")])
def test_an_overload_budget_that_this_engine_cannot_mean_is_found_when_it_is_loaded(
    bundles: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: str, cause: str
) -> None:
    monkeypatch.setenv("APEX_CACHE_DIR", str(tmp_path))
    with pytest.raises(UsageError, match=cause) as caught:
        asyncio.run(Service.open("never", bundles[1], crowded(budget)))
    assert f"overload_budget: budget {budget}" in caught.value.message and str(bundles[1]) in caught.value.message


def test_a_deadline_for_overload_is_planned_once(
    bundles: dict[int, Path], engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APEX_CACHE_DIR", str(tmp_path))
    points = tuple(Point(tiles=tiles, samples=20, p50=float(tiles), p95=float(tiles)) for tiles in (1, 16))
    key = TableKey.of(engine.opened, threads=1, batch=1)
    write_table(LatencyTable(key=key, points=points, created_utc="2026-01-01T00:00:00+00:00", circumstances={}))

    async def scenario() -> list[int]:
        service = await Service.open("overload-deadline", bundles[1], crowded("5ms", waiting=1))
        for path in tmp_path.rglob("*.json"):
            path.unlink()
        try:
            return await spent(service, (IMAGE, "1.0"), (IMAGE, "1.0"))
        finally:
            await service.close()

    assert asyncio.run(asyncio.wait_for(scenario(), LONG)) == [16, 5, 16], "a table that goes changes nothing"


@pytest.mark.parametrize(
    ("raw", "cause"),
    [
        ({"overload_budget": "lots"}, "overload_budget: .*budget 'lots'"),
        ({"overload_budget": "25%", "overload_waiting": 0}, "overload_waiting"),
        ({"overload_budget": "25%", "overload_waiting": 17}, "overload_waiting 17 is above queue 16"),
        ({"overload_budget": "25%", "queue": 0}, "overload_waiting 2 is above queue 0"),
    ],
)
def test_settings_that_cannot_be_meant(raw: dict[str, Any], cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        parse_settings(raw, "x")
    assert parse_settings({"queue": 0}, "x").overload_budget is None, "the default asks nothing of the queue"
