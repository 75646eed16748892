"""What a data set hands to training: one image with everything that must stay aligned with it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.data.image import Scaling
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.model_info import Category

_UNSAID = np.zeros(0, np.float32)


@dataclass(frozen=True, eq=False)
class Sample:
    """One image with its n objects.

    ``image`` uint8 [h,w,3] RGB; ``boxes`` float32 [n,4] xyxy pixels; ``labels`` int64 [n], positions in ``categories``; ``masks``
    n masks cut to their boxes, or None where there is only a box; ``ignore`` regions that are neither objects nor background,
    such as crowds; ``original_size`` (height, width) before any augmentation; ``scaling`` the input values that became 0 and 255
    for an image of more than 8 bits; ``weights`` float32 [n] how much each object counts, 1 when not given. The bits of masks
    and regions are uint8 0 and 1 before the augmentation, bool after it.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    masks: list[RoiMask | None]
    ignore: list[RoiMask]
    image_id: int
    original_size: tuple[int, int]
    categories: tuple[Category, ...] = ()
    scaling: Scaling | None = None
    weights: np.ndarray = field(default_factory=lambda: _UNSAID)

    def __post_init__(self) -> None:
        if self.weights is _UNSAID:
            object.__setattr__(self, "weights", np.ones(len(self.labels), np.float32))
        counts = len(self.boxes), len(self.labels), len(self.masks), len(self.weights)
        if len(set(counts)) != 1:
            raise ValueError("{} boxes, {} labels, {} masks, {} weights do not match".format(*counts))

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels and of all bits."""
        regions = [*self.masks, *self.ignore]
        return int(self.image.nbytes + sum(region.bits.nbytes for region in regions if region is not None))


def read_sample(dataset: InstanceDataset, index: int) -> Sample:
    """Image ``index`` as it lies on the disk; crowds become ignore regions. Raises what the data set's readers raise."""
    record, found, picture = dataset.records[index], dataset.instances(index), dataset.read(index)
    keep, crowd = np.flatnonzero(~found.crowd), np.flatnonzero(found.crowd)
    return Sample(
        picture.pixels,
        found.boxes[keep],
        found.labels[keep],
        [found.masks[i] for i in keep],
        [found.masks[i] or box_region(found.boxes[i]) for i in crowd],
        record.image_id,
        picture.pixels.shape[:2],
        dataset.categories,
        picture.scaling,
        np.ones(len(keep), np.float32) if found.weights is None else found.weights[keep],
    )


def box_region(box: np.ndarray) -> RoiMask:
    """Every pixel that the box [4] touches: the region of a crowd that has no mask."""
    left, top = np.floor(box[:2]).astype(int)
    right, bottom = np.ceil(box[2:]).astype(int)
    return RoiMask(int(left), int(top), np.ones((max(1, bottom - top), max(1, right - left)), np.uint8))
