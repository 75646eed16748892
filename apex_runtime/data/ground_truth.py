"""Any data set as a COCO document, so that one evaluator serves every format."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apex_runtime.data.dataset import InstanceDataset


def coco_document(dataset: InstanceDataset, places: Iterable[int] | None = None) -> dict[str, Any]:
    """Images, annotations (bbox, area, compressed RLE where there is a mask, iscrowd, weight where it is said) and categories,
    annotation ids from 1; of the images at these places of the set only, in the order of the set, when they are given."""
    annotations: list[dict[str, Any]] = []
    chosen = range(len(dataset)) if places is None else sorted(places)
    records = [dataset.records[index] for index in chosen]
    for index, record in zip(chosen, records, strict=True):
        annotations += _annotations(dataset, index, len(annotations) + 1, record.image_id)
    return {
        "images": [
            {"id": record.image_id, "file_name": record.file_name, "width": record.width, "height": record.height}
            for record in records
        ],
        "annotations": annotations,
        "categories": [{"id": category.id, "name": category.name} for category in dataset.categories],
    }


def _annotations(dataset: InstanceDataset, index: int, first: int, image_id: int) -> list[dict[str, Any]]:
    from apex_runtime.postprocess.rle import roi_to_rle

    record, found = dataset.records[index], dataset.instances(index)
    entries = []
    for n, (box, label, mask) in enumerate(zip(found.boxes.tolist(), found.labels, found.masks, strict=True)):
        entry: dict[str, Any] = {
            "id": first + n,
            "image_id": image_id,
            "category_id": dataset.categories[label].id,
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "area": float(found.areas[n]),
            "iscrowd": int(found.crowd[n]),
        }
        if found.weights is not None:
            entry["weight"] = float(found.weights[n])
        if mask is not None:
            entry["segmentation"] = roi_to_rle(mask, record.height, record.width)
        entries.append(entry)
    return entries
