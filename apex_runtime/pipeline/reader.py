"""What a run reads, in order: images, and clips frame by frame; what cannot be read comes as a failure."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

from apex_runtime.data.image import decode_image
from apex_runtime.data.sources import Clip, SourceItem
from apex_runtime.errors import ApexError
from apex_runtime.outputs.formats import ANNOTATED, FOLDERS
from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.pipeline.results import Failure, OutputFolder
from apex_runtime.pipeline.scenes import Large, open_large
from apex_runtime.pipeline.stages import Done, Frame, Loaded, RunOptions, prepare, read
from apex_runtime.video.container import is_cut_off
from apex_runtime.video.decode import DecodedFrame, decode_frames
from apex_runtime.video.writer import clip_path, count_frames

_THREADS = min(8, os.cpu_count() or 1)  # of decoding: each holds an image
_FEWER_IS_DAMAGE = 0.9  # of the frames in the header; edit lists of healthy files hide a few


class Reader:
    """Reads ``items``. ``expected``: how many of them there are; it falls when a clip ends early, and is right at the end.

    ``fetch`` is called with each image that is no frame, in the thread that decodes it, before its file is opened. An ApexError
    of it is a failure of the image, any other ends the run.
    """

    def __init__(
        self,
        predictor: Predictor,
        options: RunOptions,
        ids: Mapping[str, int],
        folder: OutputFolder,
        fetch: Callable[[SourceItem], None] | None = None,
    ) -> None:
        self.expected = len(ids)
        self._predictor = predictor
        self._options = options
        self._ids = ids
        self._folder = folder
        self._fetch = fetch

    def stream(self, items: Sequence[SourceItem], done: Collection[str]) -> Iterator[Large | Loaded | Done | Failure]:
        """Everything that is not ``done``, in the order of ``items``; of clips that have to be drawn again also what is."""
        for clip, group in groupby(items, key=lambda item: item.clip):
            unit = list(group)
            if clip is None:
                yield from self._in_threads([item for item in unit if item.relative not in done])
            elif not self._is_finished(clip, unit, done):
                yield from self._clip(clip, unit, done) if clip.is_file else self._images(unit, done)

    def _in_threads(self, items: Sequence[SourceItem]) -> Iterator[Large | Loaded | Failure]:
        """Images in their order, as many of them being decoded at a time as there are processors, up to a few."""
        with ThreadPoolExecutor(_THREADS, "apex-decoder") as pool:
            waiting: deque[Future[Large | Loaded | Failure]] = deque()
            try:
                for item in items:
                    waiting.append(pool.submit(self._image, item))
                    if len(waiting) > _THREADS:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _is_finished(self, clip: Clip, unit: Sequence[SourceItem], done: Collection[str]) -> bool:
        if not all(item.relative in done for item in unit):
            return False
        if not self._options.draws:
            return True
        return count_frames(self._folder.folder / FOLDERS[ANNOTATED] / clip_path(clip.name)) == len(unit)

    def _image(self, item: SourceItem) -> Large | Loaded | Failure:
        number = self._ids[item.relative]
        try:
            if self._fetch is not None:
                self._fetch(item)
        except ApexError as error:  # all else concerns more than one image
            return Failure.of(item.relative, error)
        try:
            large = open_large(item, number, self._predictor, self._options)
            return large or read(item, number, self._predictor, self._options)
        except Exception as error:  # whatever one file does to a decoder, the next one gets its turn
            return Failure.of(item.relative, error)

    def _images(self, unit: Sequence[SourceItem], done: Collection[str]) -> Iterator[Large | Loaded | Done | Failure]:
        """The frames of a clip that is a folder."""
        for item in unit:
            if item.relative not in done:
                yield self._image(item)
            else:
                yield from self._again(item)

    def _again(self, item: SourceItem) -> Iterator[Done]:
        assert item.clip is not None
        try:
            pixels = decode_image(item.path)
        except Exception:  # its results are there; only its picture cannot be drawn again
            return
        record = self._folder.record_of(item.relative)
        steering = self._options.steering(item)
        yield Done(record, pixels, Frame(item.clip, item.frame_index, record["seconds"]), steering)

    def _clip(self, clip: Clip, unit: Sequence[SourceItem], done: Collection[str]) -> Iterator[Loaded | Done | Failure]:
        """The frames of a video file: ``unit``, unless the file's header was wrong about their number."""
        count, failure, started = 0, None, time.perf_counter()
        try:
            for decoded in decode_frames(unit[0].path, clip.fps):
                if count == len(unit):
                    failure = Failure(clip.name, f"more frames than its header says: {count} were used.", _MEND, "clip")
                    break
                yield self._frame(unit[count], decoded, started, done)
                count, started = count + 1, time.perf_counter()
            else:
                failure = _shortfall(clip, unit[0].path, count)
        except Exception as error:
            failure = Failure.of(clip.name, error)
        self.expected += count - len(unit)
        if failure:
            self.expected += 1
            yield failure

    def _frame(self, item: SourceItem, decoded: DecodedFrame, started: float, done: Collection[str]) -> Loaded | Done | Failure:
        assert item.clip is not None
        frame = Frame(item.clip, item.frame_index, decoded.seconds)
        try:
            if item.relative in done:
                steering = self._options.steering(item)
                return Done(self._folder.record_of(item.relative), decoded.pixels, frame, steering)
            number = self._ids[item.relative]
            return prepare(decoded.pixels, item, number, self._predictor, self._options, started, frame)
        except Exception as error:
            return Failure.of(item.relative, error)


_MEND = "Check that it plays; re-encode it (ffmpeg -i IN -c:v libx264 OUT.mp4)."


def _shortfall(clip: Clip, path: Path, count: int) -> Failure | None:
    """The failure of a clip that ended after ``count`` frames, if it is one. Its frames up to there are in the results."""
    if is_cut_off(path):
        reason = f"the file is cut off: it ends after {count} of {clip.frames} frames."
        return Failure(clip.name, reason, "Copy or record it again.", "clip")
    if count == 0 or count < _FEWER_IS_DAMAGE * clip.frames:
        return Failure(clip.name, f"damaged: only {count} of {clip.frames} frames can be decoded.", _MEND, "clip")
    return None
