"""Pseudo labels as a COCO file that says where they come from: model, limits, views, and the digest of every image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from apex_runtime.evaluation.results import detections_to_results
from apex_runtime.model_info import Category
from apex_train.pseudo.choose import Judged, Limits
from apex_train.pseudo.views import View


@dataclass(frozen=True)
class Labelled:
    """An image with its labels. ``kept`` and ``unsure`` count them; annotations have no id yet."""

    image: dict[str, Any]
    annotations: list[dict[str, Any]]
    kept: int
    unsure: int


def labelled(
    judged: Judged, limits: Limits, image_id: int, file_name: str, sha256: str, id_of: Mapping[int, int], keep_unsure: bool
) -> Labelled:
    """The COCO entries of one image. ``id_of``: the category id to write for one of the model.

    A label has its score, its quality and a ``weight``, the score, by which a training counts it. What failed a limit becomes a
    crowd region when ``keep_unsure``: neither object nor background, so that nothing is learned there.
    """
    kept_n = judged.passed(limits)[-1]
    entries = [
        _entry(entry, judged, n, bool(kept_n[n])) | {"category_id": id_of[entry["category_id"]]}
        for n, entry in enumerate(detections_to_results(judged.found, image_id))
        if kept_n[n] or keep_unsure
    ]
    box = judged.found.letterbox
    image = {"id": image_id, "file_name": file_name, "width": box.source_width, "height": box.source_height, "sha256": sha256}
    unsure = sum(entry["iscrowd"] for entry in entries)
    return Labelled(image, entries, len(entries) - unsure, unsure)


def _entry(result: dict[str, Any], judged: Judged, n: int, kept: bool) -> dict[str, Any]:
    quality = {
        name: round(float(figure_n[n]), 4)
        for name, figure_n in (
            ("stability", judged.quality.stability_n),
            ("agreement", judged.quality.agreement_n),
            ("consistency", judged.quality.consistency_n),
        )
    }
    entry = {**result, "area": float(judged.found.masks[n].area), "iscrowd": int(not kept), "quality": quality}
    return entry | {"weight": entry["score"]} if kept else entry


def coco_document(
    images: Sequence[Labelled], categories: Sequence[Category], provenance: Mapping[str, Any], created_utc: str
) -> dict[str, Any]:
    """The whole file; annotation ids from 1. ``provenance`` lies under info.apex_x."""
    entries = [entry for item in images for entry in item.annotations]
    return {
        "info": {
            "description": "Pseudo labels: what a model found, annotated by nobody.",
            "date_created": created_utc,
            "apex_x": dict(provenance),
        },
        "images": [item.image for item in images],
        "annotations": [{"id": number, **entry} for number, entry in enumerate(entries, start=1)],
        "categories": [{"id": category.id, "name": category.name} for category in categories],
    }


def provenance(
    model: Mapping[str, Any], limits: Limits, calibration: Mapping[str, Any] | None, views: Sequence[View], keep_unsure: bool
) -> dict[str, Any]:
    """What somebody needs to make the same labels again, and to know that they are of this model."""
    return {
        "model": dict(model),
        "limits": asdict(limits),
        "calibration": calibration,
        "views": [view.name for view in views],
        "unsure_as": "crowd" if keep_unsure else "background",
    }
