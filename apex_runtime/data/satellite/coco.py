"""Scenes whose objects a COCO file gives: the COCO reader decodes them, windows and splits are those of a satellite set."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from apex_runtime.data.findings import Fault, Finding, Findings
from apex_runtime.data.satellite.annotations import PlacedScene, SceneAnnotations
from apex_runtime.data.satellite.description import Described
from apex_runtime.data.satellite.layout import SceneFile
from apex_runtime.errors import ConfigError, DataError

if TYPE_CHECKING:
    from apex_runtime.data.dataset import ImageRecord, InstanceDataset, Instances


class CocoAnnotations(SceneAnnotations):
    """The images and objects of all COCO files of a folder. Raises what the COCO reader raises, and ConfigError.

    Faults in files of other splits than ``split`` are left to those who open them.
    """

    def __init__(self, described: Described, split: str, strict: bool) -> None:
        from apex_runtime.data.open import open_dataset, split_names

        if described.options.images or described.options.classes:
            message = f"{described.where}: the COCO files name images and classes, `images` and `classes` would not be read."
            raise ConfigError(message, "Remove them, or choose another `source`.", path=described.where)
        names = split_names(described.root, "coco")
        if not names:
            message = f"{described.root}: no COCO files found."
            raise DataError(message, "Looked for annotations/*.json and */_annotations.coco.json.", path=described.root)
        # A rule of the description draws the scenes of a split from all files.
        concerned = {split} if described.options.split is None else set(names)
        self._sets: dict[str, InstanceDataset] = {
            name: open_dataset(described.root, name, "coco", strict and name in concerned) for name in names
        }
        self.categories = next(iter(self._sets.values())).categories
        for dataset in self._sets.values():
            if dataset.categories != self.categories:
                message = f"{dataset.source}: classes differ from those of {next(iter(self._sets.values())).source}."
                raise DataError(message, "Give all splits the same list of categories.", path=dataset.source)
        self.findings: Findings = [finding for name in names if name in concerned for finding in self._sets[name].findings]
        self._place = {
            (name, record.file_name): index
            for name, dataset in self._sets.items()
            for index, record in enumerate(dataset.records)
        }
        self.scenes = [
            SceneFile(record.file_name, record.path, name) for name, dataset in self._sets.items() for record in dataset.records
        ]

    def check(self, scene: PlacedScene) -> tuple[Findings, bool]:
        """Whether the image has the size that the file gives."""
        record = self._record(scene.file)
        if (record.height, record.width) == (scene.height, scene.width):
            return [], True
        message = f"{record.file_name} is {scene.width}x{scene.height}, the file says {record.width}x{record.height}"
        return [Finding(Fault.SIZE_MISMATCH, record.declared, message)], False

    def objects(self, scene: PlacedScene) -> tuple[Instances, Findings]:
        """As the COCO reader decodes them."""
        return self._sets[scene.file.split].decode(self._place[scene.file.split, scene.file.name])

    def files(self, scenes: Iterable[SceneFile]) -> list[Path]:
        """The COCO files."""
        used = {scene.split for scene in scenes}
        return [file for name, dataset in self._sets.items() if name in used for file in dataset.annotation_files()]

    def _record(self, scene: SceneFile) -> ImageRecord:
        return self._sets[scene.split].records[self._place[scene.split, scene.name]]
