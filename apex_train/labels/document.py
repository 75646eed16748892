"""The annotations of a split with a weight each, as a COCO file; and what nobody annotated as regions that teach nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.evaluation.results import detections_to_results
from apex_train.labels.agreement import Agreement

Regions = Literal["masks", "boxes", "none"]
LEAST = 0.01  # a weight is above 0: what counts nothing should not be in the file
_DIGITS = 4


def weighted_document(
    dataset: InstanceDataset,
    judged: Sequence[Agreement],
    id_of: Mapping[int, int],
    provenance: Mapping[str, Any],
    regions: Regions,
) -> dict[str, Any]:
    """The split as it is annotated, every object with its ``quality`` and, times the weight that it had, its ``weight``; every
    image with their mean, ``agreement``.

    ``regions``: each unlabelled detection becomes a crowd region, its mask or its box; or none does. ``id_of``: the category id
    of one of the model.
    """
    whole = dataset.ground_truth()
    entries = annotations_of(dataset)
    annotations, images = [], []
    by_id = {image["id"]: image for image in whole["images"]}
    for record, found in zip(dataset.records, judged, strict=True):
        annotations += [_weighted(entry, q) for entry, q in zip(entries[record.image_id], found.quality.tolist(), strict=True)]
        mean = found.mean
        images.append(by_id[record.image_id] | {"agreement": None if mean is None else round(mean, _DIGITS)})
    if regions != "none":
        first = max((entry["id"] for entry in annotations), default=0) + 1
        annotations += [{"id": first + n, **entry} for n, entry in enumerate(_regions(dataset, judged, id_of, regions))]
    info = {"description": "Annotations weighted by how far a model agrees with them.", "apex_x": dict(provenance)}
    return {"info": info, "images": images, "annotations": annotations, "categories": whole["categories"]}


def annotations_of(dataset: InstanceDataset) -> dict[int, list[dict[str, Any]]]:
    """The COCO annotations of every image id, in the order of the data set's instances."""
    entries: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for entry in dataset.ground_truth()["annotations"]:
        entries[entry["image_id"]].append(entry)
    return entries


def _weighted(entry: Mapping[str, Any], quality: float) -> dict[str, Any]:
    if entry.get("iscrowd"):
        return dict(entry)
    weight = max(LEAST, round(float(entry.get("weight", 1.0)) * quality, _DIGITS))
    return {**entry, "quality": round(quality, _DIGITS), "weight": min(1.0, weight)}


def _regions(
    dataset: InstanceDataset, judged: Sequence[Agreement], id_of: Mapping[int, int], regions: Regions
) -> list[dict[str, Any]]:
    found = []
    for record, agreement in zip(dataset.records, judged, strict=True):
        results = detections_to_results(agreement.unlabelled, record.image_id)
        for entry, mask in zip(results, agreement.unlabelled.masks, strict=True):
            shape = {"segmentation": entry.pop("segmentation"), "area": float(mask.area)}
            if regions == "boxes":  # of a model that has learned no masks
                shape = {"area": entry["bbox"][2] * entry["bbox"][3]}
            found.append({**entry, **shape, "category_id": id_of[entry["category_id"]], "iscrowd": 1})
    return found
