"""The same picture twice: an error between two splits of a set, a warning within a split or between sets."""

from __future__ import annotations

from typing import NamedTuple

from apex_runtime.data.dataset import ImageRecord
from apex_runtime.data.findings import Fault, Finding, Findings, Location
from apex_runtime.data.layouts import split_name


class _Sighting(NamedTuple):
    data: str
    split: str
    name: str
    where: Location


class Twins:
    """Remembers the pictures of every set and split by their hashes; the first of each split stands for its copies."""

    def __init__(self) -> None:
        self._seen: dict[bytes, list[_Sighting]] = {}

    def add(self, data: str, split: str, record: ImageRecord, digest: bytes) -> Findings:
        """What is wrong with a picture that has been seen before; of each kind the first place where it was seen."""
        new = _Sighting(data, split, record.file_name, record.declared)
        earlier = self._seen.setdefault(digest, [])
        findings: dict[Fault, Finding] = {}
        for old in earlier:
            fault = _relation(new, old)
            if fault is not None and fault not in findings:
                findings[fault] = Finding(fault, record.declared, _message(new, old))
        if not any((old.data, old.split) == (data, split) for old in earlier):
            earlier.append(new)
        return list(findings.values())


def _relation(new: _Sighting, old: _Sighting) -> Fault | None:
    """Instances and panoptic segments of one split are two annotations of the same pictures, which is as it should be."""
    if new.data != old.data or new.split == old.split:
        return Fault.DUPLICATE_IMAGE
    return Fault.SPLIT_OVERLAP if split_name(new.split) != split_name(old.split) else None


def _message(new: _Sighting, old: _Sighting) -> str:
    place = f"{old.name} in split {old.split}" + (f" of {old.data}" if old.data != new.data else "")
    return f"image {new.name} of split {new.split}: the same picture as {place} ({old.where})"
