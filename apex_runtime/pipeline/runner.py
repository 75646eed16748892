"""A run over many images: reading, the graph, and post-processing with writing overlap, with bounded memory between them.

    reader thread --(bounded queue)--> caller's thread --> lanes: the graph --(bounded queue)--> writer thread

Lanes take as many calls of the graph at a time as its session does (``lanes``); the writer waits for them in the order in which
they began, so that the journal does not depend on their number.
The frames of a clip are looked at in their order, each knowing the tiles of the one before (``routing/hysteresis.py``).
An image that fails is recorded and skipped. ``stop`` ends the run after the batch in progress; what is done stays done.
"""

from __future__ import annotations

import errno
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from queue import Queue
from typing import Any

import numpy as np

from apex_runtime.backends.session import Tiles
from apex_runtime.data.sources import SourceItem
from apex_runtime.outputs.formats import ANNOTATED, CSV, FOLDERS, GEOJSON, TABLE, ImageFiles
from apex_runtime.outputs.table import write_table
from apex_runtime.pipeline.lanes import Lanes
from apex_runtime.pipeline.pictures import redraw, save_picture
from apex_runtime.pipeline.post import record
from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.pipeline.reader import Reader
from apex_runtime.pipeline.results import JOURNAL, Failure, OutputFolder, read_journal
from apex_runtime.pipeline.scenes import Large, LookedLarge, look_at_large
from apex_runtime.pipeline.stages import Done, Loaded, Looked, RunOptions, look
from apex_runtime.pipeline.totals import Counts, Totals, run_summary
from apex_runtime.routing.hysteresis import TileMemory
from apex_runtime.routing.quadtree import flat_ids
from apex_runtime.video.statistics import video_summary
from apex_runtime.video.writer import ClipWriter
from apex_runtime.windows.passes import Interrupted

_Seen = LookedLarge | Looked | Failure
_Kind = tuple[str | None, Tiles]  # clip and K: what a batch has in common

# done, failed: how many images so far
Progress = Callable[[int, int], None]

_SCENES = 2  # in memory at a time: one in the graph, one being joined
_AFTER_A_SCENE = 8  # images the graph has seen, about 3 MB each at 512 pixels, while a scene is joined before them
_MAX_WAITING = 4  # times the batch: images read that wait for others of the same K
_OF_ONE_IMAGE = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)  # disk errors that say nothing about the next image


class Run:
    """One run over ``items`` into ``folder``. Use it once: ``Run(...).execute()``.

    A run may be a part of a larger one: ``ids`` are then the ids of its images there, ``kin`` names of images of other parts that
    claim the same name of a file, and ``fetch`` brings an image to its path before it is read (raises ApexError).
    """

    def __init__(
        self,
        predictor: Predictor,
        items: Sequence[SourceItem],
        folder: OutputFolder,
        options: RunOptions,
        stop: threading.Event | None = None,
        progress: Progress | None = None,
        ids: Mapping[str, int] | None = None,
        kin: Iterable[str] = (),
        fetch: Callable[[SourceItem], None] | None = None,
    ) -> None:
        self.predictor = predictor
        self.folder = folder
        self.options = options
        self.ids = dict(ids) if ids is not None else {item.relative: number for number, item in enumerate(items, 1)}
        self.items = items
        self.stop = stop or threading.Event()
        self.progress = progress or (lambda _done, _failed: None)
        self.done = 0
        self.resumed = 0
        self.fatal: BaseException | None = None
        self._exhausted = False
        self._totals = Totals()
        self._scenes = threading.Semaphore(_SCENES)
        self._reader = Reader(predictor, options, self.ids, folder, fetch)
        self._memory = TileMemory(options.hysteresis)
        self._films = ClipWriter(folder.folder / FOLDERS[ANNOTATED])
        self._files = ImageFiles(folder.folder, options.save, folder.categories, [*self.ids, *kin], options.draw_score)
        self._paths = {item.relative: item.path for item in items}
        self._lanes = Lanes(options.lanes, self.stop)
        self._loaded: Queue[Large | Loaded | Done | Failure | None] = Queue(maxsize=(1 + options.lanes) * options.batch)
        waiting = max(1 + options.lanes, _AFTER_A_SCENE // options.batch)
        self._looked: Queue[Future[list[_Seen]] | Done | Failure | None] = Queue(maxsize=waiting)

    def execute(self, settings: dict[str, Any], facts: dict[str, Any], resume: bool = False) -> dict[str, Any]:
        """Do it; returns the summary that is also written. ``facts`` are added to the summary as they are.

        Raises UsageError when a run cannot be resumed with these settings, OSError when the output folder cannot be written.
        """
        started = time.perf_counter()
        skip = self.folder.start(self.ids, settings, resume)
        self.resumed = len(skip)
        for line in read_journal(self.folder.folder / JOURNAL):
            self._totals.add(line)
        self.progress(self.resumed, 0)
        reader = threading.Thread(target=self._read_all, args=(skip,), name="apex-reader", daemon=True)
        writer = threading.Thread(target=self._write_all, name="apex-writer", daemon=True)
        reader.start()
        writer.start()
        try:
            with self._lanes:
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
        if CSV in self.options.save:
            records = self.folder.records()
            write_table(self.folder.folder / TABLE, records, self.folder.categories, self.options.draw_score)
        summary = self._summary(settings, facts, time.perf_counter() - started)
        self.folder.finish(summary)
        return summary

    def _read_all(self, skip: set[str]) -> None:
        try:
            for item in self._reader.stream(self.items, skip):
                self._loaded.put(item)
                if self.stop.is_set():
                    break
        except BaseException as error:  # a single file cannot cause it
            self.fatal = error
            self.stop.set()
        finally:
            self._loaded.put(None)

    def _next(self) -> Large | Loaded | Done | Failure | None:
        """What the reader has next; None at its end, after which it must not be asked again."""
        item = self._loaded.get()
        self._exhausted = item is None
        return item

    def _look_at_all(self) -> None:
        waiting: dict[_Kind, list[Loaded]] = defaultdict(list)
        while (item := self._next()) is not None:
            if self.stop.is_set():
                return
            if isinstance(item, Failure):
                self._looked.put(item)
            elif isinstance(item, Large):
                self._look_at_large(item)
            elif isinstance(item, Done):
                self._flush_frames(waiting, None)
                self._pass_on(item)
            else:
                self._gather(item, waiting)
        for group in waiting.values():
            self._look_at(group)

    def _gather(self, item: Loaded, waiting: dict[_Kind, list[Loaded]]) -> None:
        """Put an image to those of its kind, and look at what is enough for a batch, or too much to wait."""
        kind = _kind(item)
        if item.frame:
            self._flush_frames(waiting, kind)
        waiting[kind].append(item)
        alone = item.frame is not None and self.options.hysteresis > 0  # it needs the tiles of the frame before
        if alone or len(waiting[kind]) == self.options.batch:
            self._look_at(waiting.pop(kind))
        elif sum(map(len, waiting.values())) >= _MAX_WAITING * self.options.batch:
            self._look_at(waiting.pop(max(waiting, key=lambda one: len(waiting[one]))))

    def _flush_frames(self, waiting: dict[_Kind, list[Loaded]], but: _Kind | None) -> None:
        """Frames leave in their order: those of another clip or another K than what comes now go first."""
        for kind in [kind for kind in waiting if kind[0] is not None and kind != but]:
            self._look_at(waiting.pop(kind))

    def _pass_on(self, done: Done) -> None:
        """A frame of an earlier run: the next one needs its tiles, the clip its picture."""
        size = done.record["height"], done.record["width"]
        ids, levels = (np.array([tile[key] for tile in done.record["tiles"]], np.int64) for key in ("id", "level"))
        self._memory.remember((done.frame.clip.name, *size), self._numbers(ids, levels))
        self._looked.put(done)

    def _look_at(self, batch: list[Loaded]) -> None:
        """One graph call, in the next free lane; none after a stop. Frames are waited for: the next one needs their tiles."""
        frames = batch[0].frame is not None
        if frames:
            batch = [self._with_bonus(item) for item in batch]
        future = self._lanes.begin(self._seen, batch)
        if future is None:
            return
        self._looked.put(future)
        for looked in future.result() if frames else []:
            if isinstance(looked, Looked):
                numbers = self._numbers(looked.outputs["tile_ids"], looked.outputs["tile_levels"])
                self._memory.remember(_grid(looked.loaded), numbers)

    def _seen(self, batch: list[Loaded]) -> list[_Seen]:
        """When the call fails, image by image, so that one of them or their number cannot spoil the others."""
        try:
            return list(look(batch, self.predictor))
        except Exception as error:
            if len(batch) > 1:
                return [seen for item in batch for seen in self._seen([item])]
            return [Failure.of(batch[0].file_name, error)]

    def _look_at_large(self, large: Large) -> None:
        """A scene, window by window, while other images take turns with it in the lanes."""
        self._scenes.acquire()
        self._looked.put(self._lanes.beside(self._seen_large, large))

    def _seen_large(self, large: Large) -> list[_Seen]:
        """One that a stop cuts short leaves nothing, and is done anew by ``resume``."""
        try:
            return [look_at_large(large, self.predictor, self.options, self._lanes)]
        except Interrupted:
            found: list[_Seen] = []
        except Exception as error:
            found = [Failure.of(large.file_name, error)]
        self._scenes.release()
        return found

    def _numbers(self, ids_K: np.ndarray, levels_K: np.ndarray) -> list[int]:
        """Tiles keep their place on every level: the memory is over the tiles of all of them."""
        return flat_ids(ids_K, levels_K, self.predictor.info.tiles).tolist()

    def _with_bonus(self, item: Loaded) -> Loaded:
        bonus_N = self._memory.bonus_for(_grid(item), item.prepared.bonus_N)
        return replace(item, prepared=replace(item.prepared, bonus_N=bonus_N))

    def _write_all(self) -> None:
        """The only thread that touches the output folder. After a fatal error it goes on emptying its queue."""
        while (item := self._looked.get()) is not None:
            for one in self._ended(item):
                if self.fatal is None:
                    self._or_fatal(self._write, one)
                if isinstance(one, LookedLarge):
                    self._scenes.release()
        self._or_fatal(self._films.close)

    def _ended(self, item: Future[list[_Seen]] | Done | Failure) -> list[_Seen | Done]:
        """Wait for it, whatever comes of it."""
        found: list[_Seen | Done] = []
        self._or_fatal(lambda: found.extend(item.result() if isinstance(item, Future) else [item]))
        return found

    def _or_fatal(self, action: Callable[..., None], *arguments: object) -> None:
        try:
            action(*arguments)
        except BaseException as error:
            self.fatal = self.fatal or error
            self.stop.set()

    def _write(self, item: LookedLarge | Looked | Done | Failure) -> None:
        if isinstance(item, Failure):
            self.folder.failures.append(item)
        elif isinstance(item, Done):
            if self.options.draws:
                self._films.add(item.frame.clip, redraw(item, self.predictor.info, self.options.draw_score))
            return
        else:
            self._record(item)
        self.progress(self.resumed + self.done, len(self.folder.failures))

    def _record(self, looked: LookedLarge | Looked) -> None:
        name, frame = looked.file_name, looked.frame
        try:
            line, picture = record(looked, self.predictor, self.options)
            self._files.write(line, self._paths[name])
            if picture is not None and frame is None:
                save_picture(self.folder.folder, name, picture)
        except Exception as error:
            if isinstance(error, OSError) and error.errno not in _OF_ONE_IMAGE:
                raise
            self.folder.failures.append(Failure.of(name, error))
            return
        if picture is not None and frame is not None:
            self._films.add(frame.clip, picture)
        self.folder.add(line)
        self._totals.add(line)
        self.done += 1

    def _summary(self, settings: dict[str, Any], facts: dict[str, Any], seconds: float) -> dict[str, Any]:
        counts = Counts(self._reader.expected, self.done, len(self.folder.failures), self.resumed)
        place = {"images_without_place": self._files.without_place} if GEOJSON in self.options.save else {}
        return run_summary(counts, self._totals, seconds, settings, facts | self._video() | place)

    def _video(self) -> dict[str, Any]:
        clips = {item.clip.name: item.clip for item in self.items if item.clip}
        video = video_summary(read_journal(self.folder.folder / JOURNAL), clips, self.options.draws)
        return {} if video is None else {"video": video}


def _kind(item: Loaded) -> _Kind:
    return item.frame.clip.name if item.frame else None, item.prepared.tiles


def _grid(item: Loaded) -> tuple[str, int, int] | None:
    """Where a tile id means the same place: in one clip, at one size. None for an image."""
    return (item.frame.clip.name, item.height, item.width) if item.frame else None
