"""Progress on standard error: a bar with rate and remaining time on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Protocol

import click

_SECONDS_BETWEEN_LINES = 5.0


class Counter(Protocol):
    """Something that shows how far a run is; a context manager."""

    def __enter__(self) -> Counter: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def __call__(self, done: int, failed: int) -> None:
        """``done`` and ``failed`` images so far."""
        ...


def counter(total: int, what: str) -> Counter:
    """The right one for where standard error goes."""
    return Bar(total, what) if sys.stderr.isatty() else Lines(total, what)


class Bar:
    """A rich progress bar."""

    def __init__(self, total: int, what: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (
            TextColumn(what),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("remaining"),
            TimeRemainingColumn(),
            TextColumn("[red]{task.fields[failed]}"),
        )
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task = self._progress.add_task(what, total=total, rate="", failed="")
        self._pace = _Pace()

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def __call__(self, done: int, failed: int) -> None:
        rate = self._pace.rate(done + failed)
        words = f"{failed} failed" if failed else ""
        self._progress.update(self._task, completed=done + failed, rate=f"{rate:.1f}/s", failed=words)


class Lines:
    """A line every few seconds, and one at the end."""

    def __init__(self, total: int, what: str) -> None:
        self._total = total
        self._what = what
        self._pace = _Pace()
        self._last = time.monotonic()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def __call__(self, done: int, failed: int) -> None:
        count, now = done + failed, time.monotonic()
        rate = self._pace.rate(count)
        if count < self._total and now - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._last = now
        left = f", {(self._total - count) / rate:.0f} s left" if rate > 0 and count < self._total else ""
        words = f", {failed} failed" if failed else ""
        click.echo(f"{self._what}: {count}/{self._total}, {rate:.1f}/s{left}{words}", err=True)


class _Pace:
    """Images per second since the first report, which may start above zero when a run is resumed."""

    def __init__(self) -> None:
        self._start: tuple[float, int] | None = None

    def rate(self, count: int) -> float:
        now = time.monotonic()
        if self._start is None:
            self._start = now, count
        seconds, first = now - self._start[0], self._start[1]
        return (count - first) / seconds if seconds > 0 else 0.0
