"""The truth of a split, for scoring predictions that exist: the photos need not be there where the annotations say all."""

from __future__ import annotations

from pathlib import Path

from apex_runtime.data.coco import annotations as parsing
from apex_runtime.data.coco.dataset import CocoDataset
from apex_runtime.data.coco.panoptic import PanopticDataset, is_panoptic
from apex_runtime.data.dataset import DatasetType, ImageRecord, InstanceDataset, refuse
from apex_runtime.data.findings import Fault
from apex_runtime.data.json_lines import JsonFile
from apex_runtime.data.layouts import coco_places
from apex_runtime.data.open import open_dataset


def open_truth(data: Path, split: str, kind: DatasetType) -> InstanceDataset:
    """As ``open_dataset``; a COCO set of which photos are missing is opened without any. Raises DataError, UsageError.

    YOLO and satellite sets need their pictures: nothing else tells the size of an image.
    """
    if kind != "coco":
        return open_dataset(data, split, kind)
    dataset = open_dataset(data, split, kind, strict=False)
    if any(finding.fault is Fault.MISSING_IMAGE for finding in dataset.findings):
        file = parsing.read_coco(coco_places(data)[split].annotations)
        return PanopticDataset(file, None, None, split) if is_panoptic(file) else _Annotations(file, split)
    refuse(dataset.findings, dataset.source)
    return dataset


class _Annotations(CocoDataset):
    """A COCO file alone; its records lie where the file lies."""

    def __init__(self, file: JsonFile, split: str) -> None:
        super().__init__(file, [], split, strict=False)
        self.findings = [finding for finding in self.findings if finding.fault is not Fault.MISSING_IMAGE]
        refuse(self.findings, self.source)
        self.records = [
            ImageRecord(each.image_id, each.file_name, each.width, each.height, self.source, file.where("images", each.place))
            for each in self._images.values()
        ]
