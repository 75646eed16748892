"""The bounded queue: order, limits, deadlines, draining. The work waits for events, so that nothing depends on how fast it is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from apex_runtime.serving.refusals import Outcome, Refusal
from apex_runtime.serving.work_queue import WorkQueue

LONG = 60.0


def in_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), LONG))


class Gate:
    """Work that runs until it is opened, and says that it began."""

    def __init__(self) -> None:
        self.began, self.open = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.began.set()
        assert self.open.wait(LONG)
        return "done"


def after(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def begun(queue: WorkQueue, gate: Gate) -> asyncio.Task[str]:
    task = asyncio.create_task(queue.run(gate, after(LONG)))
    await asyncio.to_thread(gate.began.wait, LONG)
    return task


async def outcome_of(call: Coroutine[Any, Any, Any]) -> Outcome:
    with pytest.raises(Refusal) as caught:
        await call
    return caught.value.outcome


def test_who_comes_when_it_is_full_is_refused_at_once() -> None:
    async def scenario() -> None:
        queue, gate = WorkQueue(workers=1, limit=2), Gate()
        running = await begun(queue, gate)
        waiting = [asyncio.create_task(queue.run(lambda place=place: place, after(LONG))) for place in range(2)]
        await asyncio.sleep(0)
        assert (queue.running, queue.waiting) == (1, 2)
        assert await outcome_of(queue.run(lambda: "never", after(LONG))) is Outcome.QUEUE_FULL
        gate.open.set()
        assert await running == "done" and await asyncio.gather(*waiting) == [0, 1]
        assert await queue.run(lambda: "again", after(LONG)) == "again", "there is room again"
        assert (queue.running, queue.waiting) == (0, 0)

    in_loop(scenario)


def test_without_a_queue_only_workers_take_requests() -> None:
    async def scenario() -> None:
        queue, gates = WorkQueue(workers=2, limit=0), (Gate(), Gate())
        tasks = [await begun(queue, gate) for gate in gates]
        assert await outcome_of(queue.run(lambda: "never", after(LONG))) is Outcome.QUEUE_FULL
        for gate in gates:
            gate.open.set()
        assert await asyncio.gather(*tasks) == ["done", "done"]

    in_loop(scenario)


def test_what_waits_too_long_is_answered_and_never_computed() -> None:
    async def scenario() -> None:
        queue, gate, computed = WorkQueue(workers=1, limit=4), Gate(), []
        running = await begun(queue, gate)
        assert await outcome_of(queue.run(lambda: computed.append(1), after(0.02))) is Outcome.LATE
        gate.open.set()
        await running
        assert await queue.run(lambda: "next", after(LONG)) == "next"
        assert not computed

    in_loop(scenario)


def test_what_comes_too_late_is_not_even_begun() -> None:
    async def scenario() -> None:
        queue, computed = WorkQueue(workers=1, limit=4), []
        assert await outcome_of(queue.run(lambda: computed.append(1), after(-0.01))) is Outcome.LATE
        assert await queue.run(lambda: "next", after(LONG)) == "next"
        assert not computed and (queue.running, queue.waiting) == (0, 0)

    in_loop(scenario)


def test_a_late_result_is_thrown_away_and_its_place_stays_taken_until_it_is_done() -> None:
    async def scenario() -> None:
        queue, gate = WorkQueue(workers=1, limit=0), Gate()
        assert await outcome_of(queue.run(gate, after(0.05))) is Outcome.LATE
        assert queue.running == 1
        assert await outcome_of(queue.run(lambda: "never", after(LONG))) is Outcome.QUEUE_FULL
        gate.open.set()
        await queue.close()
        assert queue.running == 0

    in_loop(scenario)


def test_a_client_that_leaves_the_queue_makes_room() -> None:
    async def scenario() -> None:
        queue, gate, computed = WorkQueue(workers=1, limit=1), Gate(), []
        running = await begun(queue, gate)
        gone = asyncio.create_task(queue.run(lambda: computed.append(1), after(LONG)))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        stays = asyncio.create_task(queue.run(lambda: "stays", after(LONG)))
        await asyncio.sleep(0)
        gate.open.set()
        assert (await running, await stays, computed) == ("done", "stays", [])

    in_loop(scenario)


def test_closing_answers_what_was_accepted_and_takes_nothing_new() -> None:
    async def scenario() -> None:
        queue, gate = WorkQueue(workers=1, limit=3), Gate()
        running = await begun(queue, gate)
        waiting = [asyncio.create_task(queue.run(lambda place=place: place, after(LONG))) for place in range(3)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(queue.close())
        await asyncio.sleep(0)
        assert await outcome_of(queue.run(lambda: "never", after(LONG))) is Outcome.STOPPING
        assert not closing.done()
        gate.open.set()
        await closing
        assert running.done() and [task.result() for task in waiting] == [0, 1, 2]

    in_loop(scenario)


def test_an_error_of_the_work_is_the_callers() -> None:
    async def scenario() -> None:
        queue = WorkQueue(workers=1, limit=0)
        with pytest.raises(ZeroDivisionError):
            await queue.run(lambda: 1 // 0, after(LONG))
        assert await queue.run(lambda: "next", after(LONG)) == "next"

    in_loop(scenario)
