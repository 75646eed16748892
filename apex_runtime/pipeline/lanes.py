"""Calls of the graph side by side: as many as its session takes at once, each with its own images."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Lanes:
    """``count`` lanes. A block: at its end what was begun is finished.

    One lane is the caller's thread: contexts of a GPU belong to the thread that made them.
    """

    def __init__(self, count: int = 1, stop: threading.Event | None = None) -> None:
        """``stop``: begin nothing more."""
        self._stop = stop or threading.Event()
        self._free = threading.Semaphore(count)
        self._pool = ThreadPoolExecutor(count, "apex-lane") if count > 1 else None
        self._leaders = ThreadPoolExecutor(1, "apex-scene") if count > 1 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for pool in (self._leaders, self._pool):
            if pool is not None:
                pool.shutdown()

    def begin(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T] | None:
        """Wait for a free lane and begin; None, and nothing is begun, when the run stops before that.

        What ``work`` raises comes with the result; of one lane at once.
        """
        self._free.acquire()
        if self._stop.is_set():
            self._free.release()
            return None
        if self._pool is not None:
            future = self._pool.submit(work, *args, **kwargs)
            future.add_done_callback(self._leave)
            return future
        try:
            return _finished(work(*args, **kwargs))
        finally:
            self._free.release()

    def beside(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """What calls ``begin`` itself, many times, and takes turns with the caller meanwhile; of one lane it is done at once."""
        if self._leaders is not None:
            return self._leaders.submit(work, *args, **kwargs)
        return _finished(work(*args, **kwargs))

    def _leave(self, _future: Future[Any]) -> None:
        self._free.release()


def _finished(value: T) -> Future[T]:
    future: Future[T] = Future()
    future.set_result(value)
    return future
