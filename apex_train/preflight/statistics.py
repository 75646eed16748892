"""Counts of one split: images, objects, classes, sizes. Three numbers per object are kept, no mask and no pixel."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from apex_runtime.data.dataset import ImageRecord, InstanceDataset, Instances

SIZE_EDGES = (4, 8, 16, 32, 64, 96)  # px; by the root of the area, 32 and 96 are those of COCO's small, medium and large
SIZE_NAMES = ("under 4", "4 to 8", "8 to 16", "16 to 32", "32 to 64", "64 to 96", "96 and more")
LETTERBOX = 512  # px, the default of train.size


@dataclass
class SplitStatistics:
    """Counts of the images that were added so far.

    ``instances`` are objects and crowds together; crowds count in no histogram. ``classes`` counts objects by label;
    ``image_sizes`` counts (width, height); ``per_image`` has the objects of every image. ``sides`` has per image a float32 [n,3]
    with a row per object: the short side of its box and the root of its area in pixels, and the short side as a share of the
    longer side of the image.
    """

    split: str
    class_names: tuple[str, ...]
    instances: int = 0
    crowds: int = 0
    empty: int = 0
    with_mask: int = 0
    box_only: int = 0
    classes: Counter[int] = field(default_factory=Counter)
    image_sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    per_image: list[int] = field(default_factory=list)
    sides: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def of(cls, dataset: InstanceDataset) -> SplitStatistics:
        """Empty counts for a split."""
        return cls(dataset.split, tuple(category.name for category in dataset.categories))

    def add(self, record: ImageRecord, found: Instances) -> None:
        """Count an image and its instances."""
        objects = ~found.crowd
        self.instances += len(found)
        self.crowds += int(found.crowd.sum())
        self.empty += not objects.any()
        masks = np.array([mask is not None for mask in found.masks], bool)
        self.with_mask += int((masks & objects).sum())
        self.box_only += int((~masks & objects).sum())
        self.classes.update(found.labels[objects].tolist())
        boxes = found.boxes[objects]
        short = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf)
        roots, shares = np.sqrt(found.areas[objects]), short / max(record.width, record.height)
        self.sides.append(np.stack([short, roots, shares], axis=1).astype(np.float32))
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
            "sizes": {name: dict(zip(SIZE_NAMES, counts, strict=True)) for name, counts in self.size_bands().items()},
            "image_sizes": [{"width": w, "height": h, "count": n} for (w, h), n in self.image_sizes.most_common()],
            "per_image": self.per_image_figures(),
        }

    def all_sides(self) -> np.ndarray:
        """``sides`` of all images as one float32 [n,3]."""
        return np.concatenate([np.zeros((0, 3), np.float32), *self.sides])

    def size_bands(self) -> dict[str, list[int]]:
        """Objects per band of ``SIZE_NAMES``, by three measures of their size in pixels."""
        short, roots, shares = self.all_sides().T
        measures = {"sqrt_area": roots, "short_side": short, f"short_side_in_{LETTERBOX}": shares * LETTERBOX}
        return {name: _bands(sizes) for name, sizes in measures.items()}

    def per_image_figures(self) -> dict[str, float]:
        """Mean, 95th percentile and maximum of the objects per image."""
        if not self.per_image:
            return {"mean": 0.0, "p95": 0.0, "max": 0}
        counts = np.array(self.per_image)
        return {"mean": float(counts.mean()), "p95": float(np.percentile(counts, 95)), "max": int(counts.max())}


def _bands(sizes: np.ndarray) -> list[int]:
    places = np.searchsorted(SIZE_EDGES, sizes, side="right")
    return [int(count) for count in np.bincount(places, minlength=len(SIZE_NAMES))]
