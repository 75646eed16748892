"""A block through the pipeline of ``apex-rt infer``, in a folder of its own that is gone afterwards."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from apex_runtime.bundle.load import Opened
from apex_runtime.data.sources import SourceItem
from apex_runtime.offline.blocks import Block, Image
from apex_runtime.offline.fetch import fetch
from apex_runtime.offline.outcome import Outcome
from apex_runtime.outputs.formats import CSV, FOLDERS
from apex_runtime.pipeline.batching import parse_batch
from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.pipeline.results import JOURNAL, Failure, OutputFolder, detections_in, head_of
from apex_runtime.pipeline.runner import Run
from apex_runtime.pipeline.stages import RunOptions

_LONGEST = 255  # bytes of a name of a file; a signed URL has more


@dataclass(frozen=True)
class Work:
    """What is done with every block. ``batch`` as the user wrote it: what ``auto`` means depends on what executes."""

    options: RunOptions
    batch: str = "auto"
    threads: int = 1
    device: str = "cpu"
    policy: str = "strict"


def engine_facts(opened: Opened, threads: int | None) -> dict[str, Any]:
    """What ``summary.json`` says of an engine that runs."""
    names = {"requested": opened.requested, "selected": opened.selected, "executed": opened.executed}
    refusals = [asdict(refusal) for refusal in opened.refusals]
    return {"backend": names | {"reason": opened.reason or None, "refusals": refusals}, "threads": threads, "lanes": opened.lanes}


def run_block(block: Block, opened: Opened, work: Work, scratch: Path) -> Outcome:
    """Do the images of a block. Raises OSError when ``scratch`` cannot be written; a bad image is a failure in the outcome."""
    started = time.perf_counter()
    options = replace(
        work.options,
        batch=parse_batch(work.batch, opened.executed),
        lanes=opened.lanes,
        save=work.options.save - {CSV},  # made of the records of the whole job
    )
    predictor = Predictor(opened.session)
    images = {image.name: image for image in block.images}
    with _emptied(scratch) as folder:
        items = [SourceItem(_path(image, folder), image.name) for image in block.images]
        output = OutputFolder(folder / "output", predictor.info.classes)

        def bring(item: SourceItem) -> None:
            if images[item.relative].is_remote:
                fetch(images[item.relative].location, item.path)

        ids = {image.name: image.number for image in block.images}
        run = Run(predictor, items, output, options, ids=ids, kin=block.kin, fetch=bring)
        facts = engine_facts(opened, work.threads)
        summary = run.execute({}, facts)
        heads = sorted((head_of(line)["id"], line) for line in (output.folder / JOURNAL).read_bytes().splitlines(keepends=True))
        paths = {item.relative: str(item.path) for item in items}
        return Outcome(
            block.key,
            b"".join(line for _id, line in heads),
            tuple(detections_in(line) for _id, line in heads),
            tuple(_as_shown(failure, images, paths) for failure in output.failures),
            dict(_files(output.folder)),
            facts,
            summary.get("images_without_place", 0),
            round(time.perf_counter() - started, 6),
        )


def _path(image: Image, folder: Path) -> Path:
    """Where an image is read from: of a remote one the name stays, for it may say a place on the earth."""
    if not image.is_remote:
        return Path(image.location)
    name = image.shown.rpartition("/")[2]
    usable = name.strip(".") and len(os.fsencode(name)) <= _LONGEST
    return folder / "input" / str(image.number) / (name if usable else "image")


def _as_shown(failure: Failure, images: dict[str, Image], paths: dict[str, str]) -> Failure:
    """In the words of the user, who may not know where the worker read the image from, and without a signature."""
    image = images[failure.file_name]
    reason, remedy = failure.reason, failure.remedy
    for read_from in (paths[failure.file_name], image.location):
        reason, remedy = reason.replace(read_from, image.shown), remedy.replace(read_from, image.shown)
    return replace(failure, reason=reason, remedy=remedy)


def _files(output: Path) -> Iterator[tuple[str, bytes]]:
    for folder in FOLDERS.values():
        for path in sorted((output / folder).rglob("*")):
            if path.is_file():
                yield path.relative_to(output).as_posix(), path.read_bytes()


@contextmanager
def _emptied(folder: Path) -> Iterator[Path]:
    """A new folder that is gone after the block."""
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
