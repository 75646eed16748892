"""Through every split of a data set: open it, look at each picture, decode each mask, count, and gather what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from apex_runtime.cli.progress import Counter as Progress
from apex_runtime.data.dataset import DatasetType, ImageRecord, InstanceDataset, Instances
from apex_runtime.data.findings import Fault, Finding, Findings, Location, shown
from apex_runtime.data.open import open_dataset, split_names
from apex_runtime.errors import ApexError
from apex_train.preflight.pictures import Look, looks
from apex_train.preflight.statistics import SplitStatistics
from apex_train.preflight.touching import touching
from apex_train.preflight.twins import Twins

_LOOKED_AT = 100  # faults of a parse whose images are preferred for drawing

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
                where = Location(Path(error.path or data))
                report.findings.append(Finding(Fault.MALFORMED, where, f"split {split} cannot be opened: {error}"))
                continue
            report.findings += dataset.findings
            report.findings += _class_lists(classes.setdefault(type(dataset), dataset), dataset)
            report.splits.append(self._walk(dataset, report))
        report.findings = list(dict.fromkeys(report.findings))
        return report

    def _walk(self, dataset: InstanceDataset, report: SetReport) -> SplitStatistics:
        statistics = SplitStatistics.of(dataset)
        windows = Counter(record.path for record in dataset.records)
        failed = 0
        with self._begin(len(dataset), f"{report.data.name} {dataset.split}") as progress:
            for index, look in enumerate(looks(dataset, self._threads)):
                record = dataset.records[index]
                found, faults = _decode(dataset, index)
                statistics.add(record, found)
                report.findings += faults + _remarks(dataset, index, found, look)
                # Windows of a scene without data are all alike, and no picture of anything.
                if look.finding is None and not (look.uniform and windows[record.path] > 1):
                    report.findings += self._twins.add(str(report.data), dataset.split, record, look.digest)
                # That masks touch, or that there is none, is no reason to look at a picture.
                flagged = bool(faults) or look.finding is not None or _is_named(record, dataset.findings[:_LOOKED_AT])
                report.images.append(Shown(dataset, index, flagged, len(found)))
                failed += look.finding is not None
                progress(index + 1 - failed, failed)
        return statistics


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
    if len(found) == 0:
        findings.append(Finding(Fault.EMPTY_IMAGE, record.declared, f"image {record.file_name}: no object"))
    masks = [mask for mask, crowd in zip(found.masks, found.crowd, strict=True) if mask is not None and not crowd]
    count = touching(masks, record.height, record.width)
    if count:
        message = f"image {record.file_name}: {count} of {len(masks)} masks touch or overlap another"
        findings.append(Finding(Fault.TOUCHING_MASKS, record.declared, message))
    return findings


def _class_lists(first: InstanceDataset, dataset: InstanceDataset) -> Findings:
    """A label must mean the same class in every split."""
    if dataset.categories == first.categories:
        return []
    ours, others = ({(category.id, category.name) for category in each.categories} for each in (dataset, first))
    differing = shown(f"{name} ({number})" for number, name in sorted(ours ^ others))
    message = f"the classes of split {dataset.split} are not those of {first.split}: {differing or 'another order'}"
    return [Finding(Fault.MALFORMED, Location(dataset.source), message)]
