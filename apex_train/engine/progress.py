"""What a person sees while training: a bar on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class TrainingProgress:
    """Context manager around a run; ``step`` moves the bar, ``line`` prints above it."""

    def __init__(self, console: Console, total_steps: int, done: int) -> None:
        self.console = console
        self._bar = Progress(
            TextColumn("[bold]epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  {task.fields[rate]:.1f} images/s  left"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("train", total=total_steps, completed=done, epoch="-", loss=float("nan"), rate=0.0)
        self._since, self._images = time.perf_counter(), 0

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    @property
    def rate(self) -> float:
        """Images per second since the run started."""
        return self._images / max(1e-9, time.perf_counter() - self._since)

    def step(self, epoch: str, loss: float, images: int) -> None:
        """One optimiser step over ``images`` images is done."""
        self._images += images
        self._bar.update(self._task, advance=1, epoch=epoch, loss=loss, rate=self.rate)

    def line(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, highlight=False, soft_wrap=True)
