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
from apex_runtime.pipeline.results import Failure
from apex_train.mining.look import SIGNALS, Fared

FORMAT_VERSION = 1
_DIGITS = 5
_SHOWN = 200  # hardest objects and claims in the report
_GAP = 8  # px between rows of the sheet
_CAPTION = 0.6  # OpenCV's font scale


def subset(dataset: InstanceDataset, places: Sequence[int], provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The COCO document of some images of a data set, in their order there; annotation ids from 1."""
    info = {"description": "The hardest images of a data set, by a model.", "apex_x": dict(provenance)}
    return {"info": info} | coco_document(dataset, places)


def report(
    dataset: InstanceDataset,
    fared: Sequence[Fared],
    hardness_I: np.ndarray,
    weights_I: np.ndarray,
    chosen: Sequence[int],
    failures: Sequence[Failure],
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """Every image that could be read with its signals, hardest first, and the hardest objects; its schema is mine.schema.json.

    ``hardness_I`` and ``weights_I`` are in the order of ``fared``, and ``chosen`` are numbers in it.
    """
    order = np.argsort(-hardness_I, kind="stable").tolist()
    return {
        "format_version": FORMAT_VERSION,
        "kind": "mine",
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        **provenance,
        "chosen": len(chosen),
        "images": [
            {
                "file_name": dataset.records[fared[number].place].file_name,
                "image_id": dataset.records[fared[number].place].image_id,
                "hardness": round(float(hardness_I[number]), _DIGITS),
                "weight": round(float(weights_I[number]), _DIGITS),
                "chosen": number in chosen,
                **{signal: _rounded(getattr(fared[number], signal)) for signal in SIGNALS},
            }
            for number in order
        ],
        "instances": _instances(dataset, fared),
        "failures": [asdict(failure) for failure in failures],
    }


def _instances(dataset: InstanceDataset, fared: Sequence[Fared]) -> list[dict[str, Any]]:
    found = [(item, dataset.records[image.place].file_name) for image in fared for item in image.instances]
    found.sort(key=lambda pair: -pair[0].difficulty)
    return [{"file_name": name, **asdict(item), "box": list(item.box)} for item, name in found[:_SHOWN]]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)


def write_sheet(
    path: Path, predictor: Predictor, dataset: InstanceDataset, budget: str, rows: Sequence[tuple[Fared, float]]
) -> None:
    """Truth beside prediction of images with their hardness, captioned, one below the other in a PNG. Raises OSError."""
    from apex_runtime.pipeline.annotate import legend_bar, write_png
    from apex_train.pseudo.against_truth import has_masks
    from apex_train.report.pictures import Judge, render

    judge = Judge(predictor, dataset, has_masks(dataset), budget)
    drawn = []
    for fared, hardness in rows:
        picture = render(judge, fared.place)
        caption = _caption(dataset.records[fared.place].file_name, fared, hardness)
        drawn.append(np.vstack([legend_bar(picture, caption, _CAPTION), picture]))
    width = max(row.shape[1] for row in drawn)
    write_png(path, np.vstack([np.pad(row, ((0, _GAP), (0, width - row.shape[1]), (0, 0))) for row in drawn]))


def _caption(file_name: str, fared: Fared, hardness: float) -> str:
    values = {"hardness": hardness} | {signal: getattr(fared, signal) for signal in SIGNALS}
    return ", ".join([file_name, *(f"{name} {value:.2f}" for name, value in values.items() if value is not None)])
