"""What can be wrong with a data set: one list of faults for the readers, the preflight and the people who read its report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

_SHOWN = 3  # offenders listed in a message


class Fault(StrEnum):
    """Kinds of faults; the values are the names in ``preflight --json``."""

    MALFORMED = "malformed"  # an annotation or label file, or an entry of it, that cannot be read as what it claims to be
    MISSING_IMAGE = "missing_image"
    UNREADABLE_IMAGE = "unreadable_image"
    MISSING_MASK = "missing_mask"
    SIZE_MISMATCH = "size_mismatch"
    BOX_OUTSIDE = "box_outside"  # wholly outside of its image
    INVALID_BOX = "invalid_box"  # NaN, infinite, or of no positive size
    DEGENERATE_POLYGON = "degenerate_polygon"
    EMPTY_MASK = "empty_mask"
    UNKNOWN_CLASS = "unknown_class"
    DUPLICATE_ID = "duplicate_id"
    NO_OBJECTS = "no_objects"  # a split train without a single object
    SPLIT_OVERLAP = "split_overlap"  # the same picture in two splits of one set
    BOX_CLIPPED = "box_clipped"  # partly outside of its image
    BOX_MASK_MISMATCH = "box_mask_mismatch"  # box and mask of one object are about different places
    TOUCHING_MASKS = "touching_masks"
    EMPTY_IMAGE = "empty_image"
    DUPLICATE_IMAGE = "duplicate_image"  # the same picture twice in a split, or in two sets
    SMALL_PIECES = "small_pieces"  # specks of a mask, or slivers of a polygon at a border, that were left out
    UNUSED_FILE = "unused_file"  # a label without an image and the like

    @property
    def is_error(self) -> bool:
        """An error makes the preflight say no; the others are warnings."""
        return self not in _WARNINGS

    @property
    def stops_training(self) -> bool:
        """Whether a strict reader refuses the set. The others cost one annotation, which is left out and counted."""
        return self in _STOPS


_WARNINGS = frozenset(
    {
        Fault.BOX_CLIPPED,
        Fault.BOX_MASK_MISMATCH,
        Fault.TOUCHING_MASKS,
        Fault.EMPTY_IMAGE,
        Fault.DUPLICATE_IMAGE,
        Fault.SMALL_PIECES,
        Fault.UNUSED_FILE,
    }
)
# INVALID_BOX is not among them: train2017 of COCO itself has two boxes of height 0 (cocodataset/cocoapi, issue 355).
_STOPS = frozenset(
    {
        Fault.MALFORMED,
        Fault.MISSING_IMAGE,
        Fault.UNREADABLE_IMAGE,
        Fault.MISSING_MASK,
        Fault.SIZE_MISMATCH,
        Fault.UNKNOWN_CLASS,
        Fault.DUPLICATE_ID,
    }
)


@dataclass(frozen=True)
class Location:
    """A file, and the line in it (from 1) where there is one."""

    path: Path
    line: int | None = None

    def __str__(self) -> str:
        return str(self.path) if self.line is None else f"{self.path}:{self.line}"


@dataclass(frozen=True)
class Finding:
    """One fault at one place; ``message`` names the entry and what is wrong with it, without the place."""

    fault: Fault
    where: Location
    message: str


Findings = list[Finding]


def shown(items: Iterable[Any]) -> str:
    """The first few items of a list of offenders, and how many more there are."""
    everything = [str(item) for item in items]
    more = f" and {len(everything) - _SHOWN} more" if len(everything) > _SHOWN else ""
    return ", ".join(everything[:_SHOWN]) + more


def stopping(findings: Findings) -> str:
    """One sentence about the findings that stop a strict reader; empty when there are none."""
    found = [finding for finding in findings if finding.fault.stops_training]
    if not found:
        return ""
    first = [f"{finding.where}: {finding.message}" for finding in found[:_SHOWN]]
    more = f" (and {len(found) - _SHOWN} more)" if len(found) > _SHOWN else ""
    return ("; ".join(first) + more).rstrip(".") + "."
