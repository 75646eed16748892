"""A run over many images: reading, the graph, and post-processing with writing overlap, with bounded memory between them.

    reader thread --(bounded queue)--> caller's thread: the graph --(bounded queue)--> writer thread

An image that fails is recorded and skipped. ``stop`` ends the run after the batch in progress; what is done stays done.
"""

from __future__ import annotations

import errno
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Queue
from typing import Any

from apex_runtime.data.sources import SourceItem
from apex_runtime.errors import ApexError
from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.pipeline.results import JOURNAL, Failure, OutputFolder, read_journal
from apex_runtime.pipeline.stages import Loaded, Looked, RunOptions, look, read, record

# done, failed: how many images so far
Progress = Callable[[int, int], None]

_MAX_WAITING = 4  # times the batch: images read that wait for others of the same K
_OF_ONE_IMAGE = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)  # disk errors that say nothing about the next image


class Run:
    """One run over ``items`` into ``folder``. Use it once: ``Run(...).execute()``."""

    def __init__(
        self,
        predictor: Predictor,
        items: Sequence[SourceItem],
        folder: OutputFolder,
        options: RunOptions,
        stop: threading.Event | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.predictor = predictor
        self.folder = folder
        self.options = options
        self.ids = {item.relative: number for number, item in enumerate(items, 1)}
        self.items = items
        self.stop = stop or threading.Event()
        self.progress = progress or (lambda _done, _failed: None)
        self.done = 0
        self.resumed = 0
        self.fatal: BaseException | None = None
        self._exhausted = False
        self._loaded: Queue[Loaded | Failure | None] = Queue(maxsize=2 * options.batch)
        self._looked: Queue[Looked | Failure | None] = Queue(maxsize=2 * options.batch)

    def execute(self, settings: dict[str, Any], facts: dict[str, Any], resume: bool = False) -> dict[str, Any]:
        """Do it; returns the summary that is also written. ``facts`` are added to the summary as they are.

        Raises UsageError when a run cannot be resumed with these settings, OSError when the output folder cannot be written.
        """
        started = time.perf_counter()
        skip = self.folder.start(self.ids, settings, resume)
        self.resumed = len(skip)
        todo = [item for item in self.items if item.relative not in skip]
        self.progress(self.resumed, 0)
        reader = threading.Thread(target=self._read_all, args=(todo,), name="apex-reader", daemon=True)
        writer = threading.Thread(target=self._write_all, name="apex-writer", daemon=True)
        reader.start()
        writer.start()
        try:
            self._look_at_all()
        except BaseException:
            self.stop.set()
            raise
        finally:
            while not self._exhausted:  # a reader that waits for room must be let go after a stop or an error
                self._next()
            self._looked.put(None)
            writer.join()
        if self.fatal is not None:
            raise self.fatal
        summary = self._summary(settings, facts, time.perf_counter() - started)
        self.folder.finish(summary)
        return summary

    def _read_all(self, todo: Sequence[SourceItem]) -> None:
        for item in todo:
            if self.stop.is_set():
                break
            try:
                self._loaded.put(read(item, self.ids[item.relative], self.predictor, self.options.budget))
            except Exception as error:  # whatever one file does to a decoder, the next one gets its turn
                self._loaded.put(_failure(item.relative, error))
        self._loaded.put(None)

    def _next(self) -> Loaded | Failure | None:
        """What the reader has next; None at its end, after which it must not be asked again."""
        item = self._loaded.get()
        self._exhausted = item is None
        return item

    def _look_at_all(self) -> None:
        waiting: dict[int, list[Loaded]] = defaultdict(list)
        while (item := self._next()) is not None:
            if self.stop.is_set():
                return
            if isinstance(item, Failure):
                self._looked.put(item)
                continue
            group = waiting[item.prepared.tiles]
            group.append(item)
            if len(group) == self.options.batch:
                self._look_at(waiting.pop(item.prepared.tiles))
            elif sum(map(len, waiting.values())) >= _MAX_WAITING * self.options.batch:
                self._look_at(waiting.pop(max(waiting, key=lambda tiles: len(waiting[tiles]))))
        for group in waiting.values():
            if self.stop.is_set():
                return
            self._look_at(group)

    def _look_at(self, batch: list[Loaded]) -> None:
        """One graph call; when it fails, image by image, so that one of them or their number cannot spoil the others."""
        try:
            found = look(batch, self.predictor)
        except Exception as error:
            if len(batch) > 1:
                for item in batch:
                    self._look_at([item])
            else:
                self._looked.put(_failure(batch[0].file_name, error))
            return
        for looked in found:
            self._looked.put(looked)

    def _write_all(self) -> None:
        """The only thread that touches the output folder. After a fatal error it goes on emptying its queue."""
        while (item := self._looked.get()) is not None:
            if self.fatal is not None:
                continue
            try:
                self._write(item)
            except BaseException as error:
                self.fatal = error
                self.stop.set()

    def _write(self, item: Looked | Failure) -> None:
        if isinstance(item, Failure):
            self.folder.failures.append(item)
        else:
            try:
                line = record(item, self.predictor, self.options, self.folder.folder)
            except Exception as error:
                if isinstance(error, OSError) and error.errno not in _OF_ONE_IMAGE:
                    raise
                self.folder.failures.append(_failure(item.loaded.file_name, error))
            else:
                self.folder.add(line)
                self.done += 1
        self.progress(self.resumed + self.done, len(self.folder.failures))

    def _summary(self, settings: dict[str, Any], facts: dict[str, Any], seconds: float) -> dict[str, Any]:
        failed = len(self.folder.failures)
        finished = self.resumed + self.done
        complete = finished + failed == len(self.items)
        return {
            "status": "done" if complete else "interrupted",
            "settings": settings,
            **facts,
            "images": {"found": len(self.items), "done": finished, "failed": failed, "resumed": self.resumed},
            **_totals(self.folder.folder),
            "seconds": round(seconds, 3),
            "images_per_second": round(self.done / seconds, 3) if seconds > 0 else 0.0,
        }


def _totals(folder: Path) -> dict[str, Any]:
    """Detections, tiles and median milliseconds over the journal: of all finished images, resumed ones included."""
    detections, tiles, times = 0, 0, defaultdict(list)
    for line in read_journal(folder / JOURNAL):
        detections += len(line["annotations"])
        tiles += line["budget"]["spent"]
        for name, value in line["milliseconds"].items():
            times[name].append(value)
    medians = {name: round(statistics.median(values), 3) for name, values in times.items()}
    return {"detections": detections, "tiles_spent": tiles, "median_milliseconds": medians}


def _failure(file_name: str, error: Exception) -> Failure:
    if isinstance(error, ApexError):
        return Failure(file_name, error.message, error.remedy, error.code)
    if isinstance(error, MemoryError):
        return Failure(file_name, "not enough memory for this image.", "Reduce the image, or cut it into parts.", "out_of_memory")
    words = str(error).strip() or "no details"
    return Failure(file_name, f"{type(error).__name__}: {words}", "Report this with the image: it should have been handled.")
