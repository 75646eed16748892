"""Through every split of a data set: open it, look at each picture, decode each mask, count, and gather what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from apex_runtime.cli.progress import Counter as Progress
from apex_runtime.data.dataset import DatasetType, ImageRecord, InstanceDataset, Instances
from apex_runtime.data.findings import Fault, Finding, Findings, Location, shown
from apex_runtime.data.layouts import split_name
from apex_runtime.data.open import open_dataset, split_names
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.errors import ApexError, DataError
from apex_train.preflight.pictures import Look, looks
from apex_train.preflight.statistics import SplitStatistics
from apex_train.preflight.touching import touching
from apex_train.preflight.twins import Twins

_LOOKED_AT = 100  # faults of a parse whose images are preferred for drawing

NO_OBJECTS = "no object to train on; are the labels where they are looked for?"
_COARSE = 4  # px
Begin = Callable[[int, str], Progress]  # number of images, what is done with them


class Shown(NamedTuple):
    """An image that may be drawn: its split's data set, its place there, whether it has findings, and how many objects."""

    dataset: InstanceDataset
    place: int
    flagged: bool
    objects: int


@dataclass
class SetReport:
    """One set that was given: what it is, the counts of its splits, its findings, each once, and its images."""

    data: Path
    kind: DatasetType
    splits: list[SplitStatistics] = field(default_factory=list)
    findings: Findings = field(default_factory=list)
    images: list[Shown] = field(default_factory=list)

    @property
    def errors(self) -> Findings:
        """The findings that make the answer no."""
        return [finding for finding in self.findings if finding.fault.is_error]


class Walk:
    """Goes through one set after the other; pictures are compared across all of them.

    ``threads`` decode pictures; masks are decoded in the calling thread, for readers keep what they decoded last.
    """

    def __init__(self, threads: int, begin: Begin) -> None:
        self._threads, self._begin = threads, begin
        self._twins = Twins()

    def check(self, data: Path, kind: DatasetType, splits: list[str]) -> SetReport:
        """The report of a set. A split that cannot be opened becomes a finding; the others are read all the same."""
        report = SetReport(data, kind)
        classes: dict[type, InstanceDataset] = {}
        for split in splits:
            try:
                dataset = open_dataset(data, split, kind, strict=False)
            except ApexError as error:
                report.findings.append(_unopened(data, f"split {split} cannot be opened", error))
                continue
            report.findings += dataset.findings
            report.findings += _class_lists(classes.setdefault(type(dataset), dataset), dataset)
            report.splits.append(self._walk(dataset, report))
        report.findings = list(dict.fromkeys(report.findings))
        return report

    def _walk(self, dataset: InstanceDataset, report: SetReport) -> SplitStatistics:
        statistics = SplitStatistics.of(dataset)
        failed = 0
        with self._begin(len(dataset), f"{report.data.name} {dataset.split}") as progress:
            for index, look in enumerate(looks(dataset, self._threads)):
                record = dataset.records[index]
                found, faults = _decode(dataset, index)
                statistics.add(record, found)
                report.findings += faults + _remarks(dataset, index, found, look)
                # Tiles without data are all alike, and no picture of anything.
                if look.finding is None and not (look.uniform and found.crowd.all()):
                    report.findings += self._twins.add(str(report.data), dataset.split, record, look.digest)
                # That masks touch, or that there is none, is no reason to look at a picture.
                flagged = bool(faults) or look.finding is not None or _is_named(record, dataset.findings[:_LOOKED_AT])
                report.images.append(Shown(dataset, index, flagged, len(found)))
                failed += look.finding is not None
                progress(index + 1 - failed, failed)
        if split_name(dataset.split) == "train" and statistics.instances == statistics.crowds:
            report.findings.append(Finding(Fault.NO_OBJECTS, Location(dataset.source), f"split {dataset.split}: {NO_OBJECTS}"))
        return statistics


def broken_set(data: Path, kind: DatasetType, error: DataError) -> SetReport:
    """The report of a set of which not even the splits can be told."""
    return SetReport(data, kind, findings=[_unopened(data, "the set cannot be opened", error)])


def _unopened(data: Path, what: str, error: ApexError) -> Finding:
    return Finding(Fault.MALFORMED, Location(Path(error.path or data)), f"{what}: {error}")


def chosen_splits(data: Path, kind: DatasetType, asked: tuple[str, ...]) -> list[str]:
    """The splits of a set, or those asked for. Raises UsageError for one that does not exist, and where there is none."""
    from apex_runtime.errors import UsageError

    names = split_names(data, kind)
    unknown = [name for name in asked if name not in names]
    if unknown or not names:
        message = f"{data}: no split {shown(unknown)}" if unknown else f"{data}: no split"
        raise UsageError(f"{message} in this {kind} set.", f"Splits found: {', '.join(names) or 'none'}.", path=data)
    return [name for name in names if not asked or name in asked]


def _is_named(record: ImageRecord, findings: Findings) -> bool:
    """Whether a fault met while parsing is about this image: it names it, or lies in its own label file."""
    return any(record.file_name in finding.message or record.path.stem == finding.where.path.stem for finding in findings)


def _decode(dataset: InstanceDataset, index: int) -> tuple[Instances, Findings]:
    try:
        return dataset.decode(index)
    except ApexError as error:
        record = dataset.records[index]
        finding = Finding(Fault.MALFORMED, record.declared, f"image {record.file_name}: {error.message}")
        return _nothing(), [finding]


def _nothing() -> Instances:
    return Instances(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), [], np.zeros(0, bool), np.zeros(0, np.float32))


def _remarks(dataset: InstanceDataset, index: int, found: Instances, look: Look) -> Findings:
    """What is wrong with the picture, and what is worth knowing about its objects."""
    record = dataset.records[index]
    findings = [] if look.finding is None else [look.finding]
    if found.crowd.all():
        findings.append(Finding(Fault.EMPTY_IMAGE, record.declared, f"image {record.file_name}: no object"))
    odd = sum(_apart(box, mask) for box, mask in zip(found.boxes, found.masks, strict=True) if mask is not None)
    if odd:
        message = f"image {record.file_name}: {odd} of {len(found)} objects have a box that is not where their mask is"
        findings.append(Finding(Fault.BOX_MASK_MISMATCH, record.declared, message))
    masks = [mask for mask, crowd in zip(found.masks, found.crowd, strict=True) if mask is not None and not crowd]
    count = touching(masks, record.height, record.width)
    if count:
        message = f"image {record.file_name}: {count} of {len(masks)} masks touch or overlap another"
        findings.append(Finding(Fault.TOUCHING_MASKS, record.declared, message))
    return findings


def _apart(box: np.ndarray, mask: RoiMask) -> bool:
    """Whether a box, x1 y1 x2 y2, and the bounds of a mask share less than half of what they cover together, in pixels.

    Masks of a few pixels are rounded too coarsely to tell.
    """
    height, width = mask.bits.shape
    low, high = np.array([mask.x, mask.y]), np.array([mask.x + width, mask.y + height])
    shared = float(np.prod(np.clip(np.minimum(box[2:], high) - np.maximum(box[:2], low), 0, None)))
    return min(height, width) >= _COARSE and shared < 0.5 * (float(np.prod(box[2:] - box[:2])) + height * width - shared)


def _class_lists(first: InstanceDataset, dataset: InstanceDataset) -> Findings:
    """A label must mean the same class in every split."""
    if dataset.categories == first.categories:
        return []
    ours, others = ({(category.id, category.name) for category in each.categories} for each in (dataset, first))
    differing = shown(f"{name} ({number})" for number, name in sorted(ours ^ others))
    message = f"the classes of split {dataset.split} are not those of {first.split}: {differing or 'another order'}"
    return [Finding(Fault.MALFORMED, Location(dataset.source), message)]
