"""A bounded queue in front of a few threads: who comes when it is full, or waits too long, is told so and costs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from apex_runtime.serving.refusals import Outcome, Refusal

T = TypeVar("T")
_WAITED = "while it waited; nothing was computed"


class WorkQueue:
    """``workers`` calls at a time, first come, first served; at most ``limit`` wait. For one event loop."""

    def __init__(self, workers: int, limit: int) -> None:
        self.waiting = 0
        self.running = 0
        self._workers, self._limit = workers, limit
        self._places = asyncio.Semaphore(workers)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="apex-serving")
        self._closed = False

    async def run(self, work: Callable[[], T], until: float) -> T:
        """What ``work`` returns in a thread of its own. ``until``: the deadline, in the clock of the event loop.

        Raises Refusal: the queue is full, closed, or the deadline passed; in the latter case work that waits is never begun, and
        what work that runs returns is thrown away.
        """
        if self._closed:
            raise Refusal(Outcome.STOPPING, "the model is being stopped.", "Ask another server, or again in a moment.")
        if self._places.locked() and self.waiting >= self._limit:
            raise Refusal(Outcome.QUEUE_FULL, f"{self.waiting} requests wait already.", "Ask again later, and less often.")
        await self._place(until)
        self.running += 1
        call = asyncio.get_running_loop().run_in_executor(self._threads, work)
        call.add_done_callback(self._done)
        try:
            async with asyncio.timeout_at(until):
                return await asyncio.shield(call)  # a thread cannot be stopped: its place is free when it is done
        except TimeoutError as error:
            raise _late("while it was computed") from error

    async def _place(self, until: float) -> None:
        self.waiting += 1
        try:
            async with asyncio.timeout_at(until):
                await self._places.acquire()
        except TimeoutError as error:
            raise _late(_WAITED) from error
        finally:
            self.waiting -= 1
        if asyncio.get_running_loop().time() >= until:  # a place that is free is taken without a look at the clock
            self._places.release()
            raise _late(_WAITED)

    def _done(self, call: asyncio.Future[T]) -> None:
        self.running -= 1
        self._places.release()
        if not call.cancelled():
            call.exception()  # of a call that nobody waits for any more

    async def close(self) -> None:
        """Take nothing new; return when what waits and runs is done."""
        self._closed = True
        for _ in range(self._workers):  # those who wait for a place came before
            await self._places.acquire()
        self._threads.shutdown(wait=False)


def _late(when: str) -> Refusal:
    return Refusal(Outcome.LATE, f"the deadline of the request passed {when}.", "Allow more time, or a smaller budget.")
