"""What a search for hard images writes: a COCO subset, the weights of images, a report, and a sheet of the hardest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.data.ground_truth import coco_document
from apex_runtime.pipeline.predictor import Predictor
from apex_train.mining.look import SIGNALS, Fared

FORMAT_VERSION = 1
_DIGITS = 5
_SHOWN = 200  # hardest objects and claims in the report


def subset(dataset: InstanceDataset, places: Sequence[int], provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The COCO document of some images of a data set, in their order there; ids as in the whole document."""
    kept = {dataset.records[place].image_id for place in places}
    whole = coco_document(dataset)
    return {
        "info": {"description": "The hardest images of a data set, by a model.", "apex_x": dict(provenance)},
        "images": [image for image in whole["images"] if image["id"] in kept],
        "annotations": [entry for entry in whole["annotations"] if entry["image_id"] in kept],
        "categories": whole["categories"],
    }


def report(
    dataset: InstanceDataset,
    fared: Sequence[Fared],
    hardness_I: np.ndarray,
    weights_I: np.ndarray,
    places: Sequence[int],
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """Every image with its signals, hardest first, and the hardest objects; its schema is mine.schema.json."""
    order = np.argsort(-hardness_I, kind="stable").tolist()
    chosen = set(places)
    return {
        "format_version": FORMAT_VERSION,
        "kind": "mine",
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        **provenance,
        "chosen": len(places),
        "images": [
            {
                "file_name": dataset.records[place].file_name,
                "image_id": dataset.records[place].image_id,
                "hardness": round(float(hardness_I[place]), _DIGITS),
                "weight": round(float(weights_I[place]), _DIGITS),
                "chosen": place in chosen,
                **{signal: _rounded(getattr(fared[place], signal)) for signal in SIGNALS},
            }
            for place in order
        ],
        "instances": _instances(dataset, fared),
    }


def _instances(dataset: InstanceDataset, fared: Sequence[Fared]) -> list[dict[str, Any]]:
    found = [(item, dataset.records[image.place].file_name) for image in fared for item in image.instances]
    found.sort(key=lambda pair: -pair[0].difficulty)
    return [{"file_name": name, **asdict(item), "box": list(item.box)} for item, name in found[:_SHOWN]]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)


def write_sheet(path: Path, predictor: Predictor, dataset: InstanceDataset, places: Sequence[int]) -> None:
    """Truth beside prediction of these images, one below the other in a PNG. Raises OSError."""
    from apex_runtime.pipeline.annotate import write_png
    from apex_train.pseudo.against_truth import has_masks
    from apex_train.report.pictures import Judge, render

    judge = Judge(predictor, dataset, has_masks(dataset))
    rows = [render(judge, place) for place in places]
    width = max(row.shape[1] for row in rows)
    write_png(path, np.vstack([np.pad(row, ((0, _GAP), (0, width - row.shape[1]), (0, 0))) for row in rows]))


_GAP = 8  # px
