"""The output folder of a run: a journal that grows image by image, and the files that are made of it at the end.

``results.jsonl``  one line per finished image with its detections; nothing in it is lost when a run is interrupted
``results.json``   the same in COCO form
``failures.json``  the images that could not be used, and why
``summary.json``   what was asked, what was done, how long it took; written at the start too, so that --resume can compare
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from apex_runtime.errors import ApexError, UsageError
from apex_runtime.files import replacing, replacing_text
from apex_runtime.model_info import Category
from apex_runtime.outputs.formats import ANNOTATED, FOLDERS, TABLE, remove_files_of
from apex_runtime.video.writer import clip_path

JOURNAL = "results.jsonl"
RESULTS = "results.json"
FAILURES = "failures.json"
SUMMARY = "summary.json"
SHARDS = "shards"  # of a job on several machines (offline.shards)
NAMES = (JOURNAL, RESULTS, FAILURES, SUMMARY, TABLE, SHARDS, *FOLDERS.values())
IDS_PER_IMAGE = 1_000_000  # more objects than any scene has
_ANNOTATIONS = b',"annotations":['  # cannot be part of a name: in a string its quotes have backslashes
_SHARD = re.compile(r"_?\d{9}-[0-9a-f]{16}\.(jsonl|parquet|json)")
STATES = ("running", "interrupted", "done")


@dataclass(frozen=True)
class Failure:
    """An image that was skipped."""

    file_name: str
    reason: str
    remedy: str
    code: str

    @classmethod
    def of(cls, file_name: str, error: Exception) -> Failure:
        """What went wrong with a file, in words for its user."""
        if isinstance(error, ApexError):
            return cls(file_name, error.message, error.remedy, error.code or error.kind)
        if isinstance(error, MemoryError):
            return cls(file_name, "not enough memory for this image.", "Reduce the image, or cut it into parts.", "out_of_memory")
        words = str(error).strip() or "no details"
        return cls(
            file_name, f"{type(error).__name__}: {words}", "Report this with the image: it should have been handled.", "internal"
        )


def write_json(path: Path, value: object) -> None:
    """Write a JSON file in one step: readers see the old one or the new one. NaN is refused: it is not JSON."""
    with replacing_text(path) as stream:
        json.dump(value, stream, indent=2, allow_nan=False)
        stream.write("\n")


def annotation_id(image_id: int, rank: int) -> int:
    """1-based, and known while other images are still running: every image owns ``IDS_PER_IMAGE`` ids."""
    return (image_id - 1) * IDS_PER_IMAGE + rank + 1


class OutputFolder:
    """The files of one run. Not safe for use from several threads: the writer thread owns it."""

    def __init__(self, folder: Path, categories: tuple[Category, ...]) -> None:
        self.folder = folder
        self.categories = categories
        self.failures: list[Failure] = []
        self._journal: BinaryIO | None = None
        self._offsets: dict[str, int] = {}
        self._lines: list[tuple[int, int]] = []  # id of every image in the journal, and where its line starts

    def start(self, ids: dict[str, int], settings: dict[str, Any], resume: bool) -> set[str]:
        """Open the journal; returns the names of images that need no work because an earlier run with ``resume`` did them.

        ``ids`` gives the id of every image of this run by name. Raises UsageError, and touches nothing, when the folder holds
        files of our names that are not ours, an unfinished run without ``resume``, or a run with other settings to resume.
        """
        _check_folder(self.folder, resume)
        self.folder.mkdir(parents=True, exist_ok=True)
        done = self._take_over(ids, settings) if resume else self._start_afresh()
        write_json(self.folder / SUMMARY, {"status": "running", "settings": settings})
        self._journal = (self.folder / JOURNAL).open("ab")
        return done

    def record_of(self, name: str) -> dict[str, Any]:
        """The record of an image that ``start`` called done. Any thread may ask."""
        with (self.folder / JOURNAL).open("rb") as stream:
            stream.seek(self._offsets[name])
            return dict(json.loads(stream.readline()))

    def add(self, record: dict[str, Any]) -> None:
        """Append one finished image (the fields of ``results.json`` plus its ``annotations``); on disk before this returns."""
        assert self._journal is not None
        self._lines.append((record["id"], self._journal.tell()))
        self._journal.write(_line(record))
        self._journal.flush()

    def append(self, number: int, line: bytes) -> None:
        """Append the line that another journal has of an image, and ``number`` in it."""
        assert self._journal is not None
        self._lines.append((number, self._journal.tell()))
        self._journal.write(line)
        self._journal.flush()

    def sort_journal(self) -> None:
        """Put the lines of the journal in the order of their ids, where they are not; nothing can be added after that."""
        assert self._journal is not None
        self._journal.close()
        if self._lines == sorted(self._lines):
            return
        lines: list[tuple[int, int]] = []
        with replacing(self.folder / JOURNAL) as stream:
            for (number, _offset), line in zip(sorted(self._lines), self._sorted(), strict=True):
                lines.append((number, stream.tell()))
                stream.write(line)
        self._lines = lines

    def finish(self, summary: dict[str, Any]) -> None:
        """Close the journal and write the three files made of it."""
        if self._journal is not None:
            self._journal.close()
        self._write_coco()
        write_json(self.folder / FAILURES, [asdict(item) for item in sorted(self.failures, key=lambda item: item.file_name)])
        write_json(self.folder / SUMMARY, summary)

    def _start_afresh(self) -> set[str]:
        """Remove what an earlier run left in this folder: its pictures would pass for ours.

        Its summary stays until ours replaces it: without one the rest would pass for somebody else's.
        """
        remove_shards(self.folder)  # first: without a journal nothing says with which settings they were made
        for record in read_journal(self.folder / JOURNAL):
            clip = record.get("clip")
            if isinstance(clip, str):
                (self.folder / FOLDERS[ANNOTATED] / clip_path(clip)).unlink(missing_ok=True)
            remove_files_of(self.folder, record["file_name"])
        for name in (JOURNAL, RESULTS, FAILURES, TABLE):
            (self.folder / name).unlink(missing_ok=True)
        return set()

    def _take_over(self, ids: dict[str, int], settings: dict[str, Any]) -> set[str]:
        """Keep the finished images of an earlier run that are part of this one, under the ids of this one."""
        journal = self.folder / JOURNAL
        if journal.exists() or shard_files(self.folder):
            self._compare_settings(settings)
        if not journal.exists():
            return set()
        with replacing(journal) as stream:
            for record in read_journal(journal):
                name = record["file_name"]
                if name in ids and name not in self._offsets:
                    self._offsets[name] = stream.tell()
                    self._lines.append((ids[name], stream.tell()))
                    stream.write(_line(_renumbered(record, ids[name])))
        return set(self._offsets)

    def _compare_settings(self, settings: dict[str, Any]) -> None:
        path = self.folder / SUMMARY
        try:
            before = json.loads(path.read_text(encoding="utf-8"))["settings"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path}: cannot tell with which settings the run to resume was made.",
                "Use another --output, or remove the folder.",
                path=path,
            ) from error
        different = [name for name in settings if before.get(name) != settings[name]]
        if different:
            name = different[0]
            raise UsageError(
                f"{path}: the run to resume had {name} {before.get(name)!r}, this one has {settings[name]!r}.",
                "Use the same settings or another --output, or remove the folder to start again.",
                path=path,
            )

    def records(self) -> Iterator[dict[str, Any]]:
        """The records of the journal, in the order of their ids, one after the other from the disk."""
        return map(json.loads, self._sorted())

    def _write_coco(self) -> None:
        """Two passes over the journal, so that a long run never has to fit in memory; its text is taken as it is."""
        with replacing(self.folder / RESULTS) as stream:
            stream.write(b'{"images": [')
            _write_items(stream, (head + b"}" for head, _found in map(_cut, self._sorted())))
            stream.write(b'],\n"categories": ')
            stream.write(json.dumps([category.model_dump() for category in self.categories]).encode())
            stream.write(b',\n"annotations": [')
            _write_items(stream, (found for _head, found in map(_cut, self._sorted()) if found))
            stream.write(b"]}\n")

    def _sorted(self) -> Iterator[bytes]:
        """The lines of the journal in the order of their ids."""
        with (self.folder / JOURNAL).open("rb") as stream:
            for _id, offset in sorted(self._lines):
                stream.seek(offset)
                yield stream.readline()


def shard_files(folder: Path) -> list[Path]:
    """The files of the shards of an output folder; nothing else that may lie there."""
    return [path for path in (folder / SHARDS).glob("*") if _SHARD.fullmatch(path.name)]


def remove_shards(folder: Path) -> None:
    """Remove the shards of an earlier job in an output folder."""
    for path in shard_files(folder):
        path.unlink()
    with suppress(OSError):  # not there, or not empty
        (folder / SHARDS).rmdir()


def _check_folder(folder: Path, resume: bool) -> None:
    """Refuse to write where somebody else's files, or unfinished work, would be lost. Raises UsageError."""
    present = [name for name in NAMES if (folder / name).exists()]
    if not present:
        return
    status = _status(folder)
    if status is None or not _is_ours(folder / JOURNAL):
        # a broken summary beside a journal of ours: the comparison of settings has more to say
        if resume and _has_records(folder / JOURNAL):
            return
        raise UsageError(
            f"{folder}: {', '.join(present)} in this folder cannot be told to be of an earlier run; nothing was touched.",
            "Name another --output.",
            path=folder,
        )
    if status != "done" and not resume:
        raise UsageError(
            f"{folder}: holds a run that was not finished; nothing was touched.",
            "Go on with --resume, name another --output, or remove the folder.",
            path=folder,
        )


def _status(folder: Path) -> str | None:
    """How the run that wrote the summary ended; None when there is no summary of ours."""
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ours = isinstance(summary, dict) and summary.get("status") in STATES and isinstance(summary.get("settings"), dict)
    return str(summary["status"]) if ours else None


def _is_ours(journal: Path) -> bool:
    """A journal begins with a record; or it has none yet, or only one that was cut off."""
    if not journal.exists():
        return True
    if not journal.is_file():
        return False
    with journal.open("rb") as stream:
        first = stream.readline()
    return not first.endswith(b"\n") or _parse(first) is not None


def _has_records(journal: Path) -> bool:
    return next(read_journal(journal), None) is not None


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a journal; a last line that was cut off by a crash is left out."""
    if not path.is_file():
        return
    with path.open("rb") as stream:
        for line in stream:
            record = _parse(line)
            if record is not None:
                yield record


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or not line.endswith(b"\n"):
        return None
    number, name, found = (record.get(key) for key in ("id", "file_name", "annotations"))
    if type(number) is not int or not isinstance(name, str) or not isinstance(found, list):
        return None
    return record if all(isinstance(item, dict) for item in found) else None


def _line(record: dict[str, Any]) -> bytes:
    """A line of the journal; the annotations come last, where ``_cut`` finds them."""
    ordered = {name: value for name, value in record.items() if name != "annotations"} | {"annotations": record["annotations"]}
    return json.dumps(ordered, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def head_of(line: bytes) -> dict[str, Any]:
    """The record in a line of the journal without its annotations, which are the most of it and are not parsed.

    Raises ValueError.
    """
    head, _found = _cut(line)
    return dict(json.loads(head + b"}"))


def detections_in(line: bytes) -> int:
    """How many annotations a line of the journal has: in a string the quotes of this key would have backslashes."""
    return line.count(b'"category_id":')


def renumbered_line(line: bytes, image_id: int) -> bytes:
    """The line of an image that has another id in this run. Raises ValueError."""
    return _line(_renumbered(json.loads(line), image_id))


def _cut(line: bytes) -> tuple[bytes, bytes]:
    """A line of the journal as the object without its annotations and without its closing brace, and the items of their list."""
    head, _name, found = line.partition(_ANNOTATIONS)
    return head, found.removesuffix(b"]}\n")


def _write_items(stream: BinaryIO, items: Iterator[bytes]) -> None:
    separator = b"\n"
    for item in items:
        stream.write(separator + item)
        separator = b",\n"


def _renumbered(record: dict[str, Any], image_id: int) -> dict[str, Any]:
    ids = {"image_id": image_id}
    annotations = [item | ids | {"id": annotation_id(image_id, rank)} for rank, item in enumerate(record["annotations"])]
    return record | {"id": image_id, "annotations": annotations}
