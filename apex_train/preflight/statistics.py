"""Counts of one split: images, objects, classes, sizes. Small whatever the set is: no mask and no pixel is kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from apex_runtime.data.dataset import ImageRecord, InstanceDataset, Instances

SIZE_EDGES = (8, 16, 32, 96)  # px of the square root of the area; 32 and 96 are those of COCO's small, medium and large
SIZE_NAMES = ("under 8", "8 to 16", "16 to 32", "32 to 96", "96 and more")


@dataclass
class SplitStatistics:
    """Counts of the images that were added so far.

    ``instances`` are objects and crowds together; crowds count in no histogram. ``classes`` counts objects by label, ``sizes``
    by the bins of ``SIZE_NAMES``; ``image_sizes`` counts (width, height); ``per_image`` has the objects of every image.
    """

    split: str
    class_names: tuple[str, ...]
    instances: int = 0
    crowds: int = 0
    empty: int = 0
    with_mask: int = 0
    box_only: int = 0
    classes: Counter[int] = field(default_factory=Counter)
    sizes: list[int] = field(default_factory=lambda: [0] * len(SIZE_NAMES))
    image_sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    per_image: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, dataset: InstanceDataset) -> SplitStatistics:
        """Empty counts for a split."""
        return cls(dataset.split, tuple(category.name for category in dataset.categories))

    def add(self, record: ImageRecord, found: Instances) -> None:
        """Count an image and its instances."""
        objects = ~found.crowd
        self.instances += len(found)
        self.crowds += int(found.crowd.sum())
        self.empty += len(found) == 0
        masks = np.array([mask is not None for mask in found.masks], bool)
        self.with_mask += int((masks & objects).sum())
        self.box_only += int((~masks & objects).sum())
        self.classes.update(found.labels[objects].tolist())
        places = np.searchsorted(SIZE_EDGES, np.sqrt(found.areas[objects]), side="right")
        for place, count in enumerate(np.bincount(places, minlength=len(SIZE_NAMES)).tolist()):
            self.sizes[place] += count
        self.image_sizes[(record.width, record.height)] += 1
        self.per_image.append(int(objects.sum()))

    def as_json(self) -> dict[str, Any]:
        """The counts as they stand in ``preflight --json``; every class of the list, also those that do not occur."""
        return {
            "split": self.split,
            "images": len(self.per_image),
            "instances": self.instances,
            "crowds": self.crowds,
            "images_without_objects": self.empty,
            "with_mask": self.with_mask,
            "box_only": self.box_only,
            "classes": [{"name": name, "count": self.classes[label]} for label, name in enumerate(self.class_names)],
            "sizes": dict(zip(SIZE_NAMES, self.sizes, strict=True)),
            "image_sizes": [{"width": w, "height": h, "count": n} for (w, h), n in self.image_sizes.most_common()],
            "per_image": self.per_image_figures(),
        }

    def per_image_figures(self) -> dict[str, float]:
        """Mean, 95th percentile and maximum of the objects per image."""
        if not self.per_image:
            return {"mean": 0.0, "p95": 0.0, "max": 0}
        counts = np.array(self.per_image)
        return {"mean": float(counts.mean()), "p95": float(np.percentile(counts, 95)), "max": int(counts.max())}
