"""The images that get labels: files that nobody annotated, or a split of a data set, whose truth is then compared with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from apex_runtime.data.dataset import InstanceDataset, Instances
from apex_runtime.data.image import Picture, read_picture
from apex_runtime.data.sources import SourceItem
from apex_runtime.model_info import Category


@dataclass(frozen=True)
class Item:
    """One image: its id and name in the file that is written, and where it lies. ``index``: in the data set, -1 without one."""

    image_id: int
    file_name: str
    path: Path
    index: int = -1


@dataclass(frozen=True, eq=False)
class Pictures:
    """The images in their order, and the data set that they are of, if any."""

    items: list[Item]
    dataset: InstanceDataset | None = None

    @property
    def annotated(self) -> bool:
        """Whether there is any truth to compare with."""
        data = self.dataset
        return data is not None and any(len(data.instances(index)) for index in range(len(data)))

    def picture(self, item: Item) -> Picture:
        """An image and the scaling of its values. Raises ImageError; DataError when a data set says another size."""
        return read_picture(item.path) if self.dataset is None else self.dataset.read(item.index)

    def read(self, item: Item) -> np.ndarray:
        """The pixels, uint8 [h,w,3] RGB. Raises what ``picture`` raises."""
        return self.picture(item).pixels

    def truth(self, item: Item) -> Instances:
        """The objects of an image of a data set. Raises DataError."""
        assert self.dataset is not None
        return self.dataset.instances(item.index)

    def categories(self, of_model: tuple[Category, ...]) -> tuple[Category, ...]:
        """Those of the data set, so that its annotations and the labels fit together; else those of the model."""
        return of_model if self.dataset is None else self.dataset.categories


def of_files(items: list[SourceItem]) -> Pictures:
    """Images without annotations, with ids from 1."""
    return Pictures([Item(number, item.relative, item.path) for number, item in enumerate(items, start=1)])


def of_dataset(dataset: InstanceDataset) -> Pictures:
    """The images of a split, with the ids that they have there."""
    records = enumerate(dataset.records)
    return Pictures([Item(record.image_id, record.file_name, record.path, index) for index, record in records], dataset)
