"""Of the shards of a job one journal, in the order of the ids, and the proof that every image is in it once or has failed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from apex_runtime.errors import DataError
from apex_runtime.offline.shards import Shard, ShardStore
from apex_runtime.pipeline.results import Failure, OutputFolder, head_of, renumbered_line
from apex_runtime.pipeline.totals import Totals

_REMEDY = "Remove the folder shards in it and run the command again with --resume."


def merge(
    store: ShardStore,
    shards: Sequence[Shard],
    folder: OutputFolder,
    ids: Mapping[str, int],
    before: Collection[str],
    totals: Totals,
    complete: bool,
) -> None:
    """Append the images of ``shards`` to the journal of ``folder``, and their failures.

    ``ids``: of all images of the job. ``before``: those that the journal has. An image of a shard that is among them, or no more
    among the sources, is left out. ``complete``: that none is missing is proved too. ``totals`` counts what is appended.

    Raises DataError when an image is there twice or, of a complete job, not at all, or when a shard was changed.
    """
    seen = set(before)
    for name, number, line, detections in _lines(store, shards, ids, before):
        if name in seen:
            raise DataError(f"{folder.folder}: the image {name} is in two shards.", _REMEDY, path=folder.folder)
        seen.add(name)
        folder.append(number, line)
        totals.count(head_of(line), detections)
    folder.sort_journal()  # an earlier try may have begun it
    folder.failures += _failures(shards, ids, seen)
    failed = [failure.file_name for failure in folder.failures]
    if len(set(failed)) != len(failed) or seen & set(failed):
        raise DataError(f"{folder.folder}: an image has two answers in the shards.", _REMEDY, path=folder.folder)
    missing = sorted(set(ids) - seen - set(failed))
    if complete and missing:
        cause = f"{folder.folder}: {len(missing)} images have no answer in the shards, the first is {missing[0]}."
        raise DataError(cause, "Run the command again with --resume.", path=folder.folder)


def _lines(
    store: ShardStore, shards: Sequence[Shard], ids: Mapping[str, int], before: Collection[str]
) -> Iterator[tuple[str, int, bytes, int]]:
    """Name, id, line and number of detections of each image, with the ids of this job."""
    for shard in sorted(shards, key=lambda shard: shard.key):
        for line, detections in zip(store.lines(shard), shard.index.detections, strict=True):
            head = head_of(line)
            name = str(head["file_name"])
            number = ids.get(name)
            if number is None or name in before:
                continue
            yield name, number, line if head["id"] == number else renumbered_line(line, number), detections


def _failures(shards: Sequence[Shard], ids: Mapping[str, int], seen: Collection[str]) -> list[Failure]:
    found = [failure for shard in shards for failure in shard.index.failures]
    return [failure for failure in found if failure.file_name in ids and failure.file_name not in seen]
