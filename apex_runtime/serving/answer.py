"""The outputs of an answered request, the same on both servers; all have a leading dimension of 1, the image.

Legend: n detections, best first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from apex_runtime.detections import Detections
from apex_runtime.model_info import ModelInfo
from apex_runtime.postprocess.rle import rois_to_rles
from apex_runtime.serving.refusals import invalid


@dataclass(frozen=True)
class OutputSpec:
    """An output: its datatype and shape in the protocol, -1 for n."""

    name: str
    datatype: str
    shape: tuple[int, ...]


OUTPUTS = (
    OutputSpec("boxes", "FP32", (1, -1, 4)),  # xyxy, pixels of the image that was sent
    OutputSpec("scores", "FP32", (1, -1)),
    OutputSpec("labels", "INT64", (1, -1)),  # places in the model's list of classes
    OutputSpec("category_ids", "INT64", (1, -1)),
    OutputSpec("class_names", "BYTES", (1, -1)),
    OutputSpec("masks", "BYTES", (1, -1)),  # JSON of the compressed COCO RLE
    OutputSpec("spent", "INT64", (1, 1)),  # tiles that were looked at closely
)
OUTPUT_NAMES = tuple(spec.name for spec in OUTPUTS)


def check_outputs(names: Collection[str]) -> None:
    """Raises Refusal for the name of an output that there is not."""
    unknown = sorted(set(names) - set(OUTPUT_NAMES))
    if unknown:
        raise invalid(f"output {unknown[0]!r} is unknown.", f"The outputs are {', '.join(OUTPUT_NAMES)}.")


def answer_of(found: Detections, info: ModelInfo, wanted: Collection[str] = OUTPUT_NAMES) -> dict[str, np.ndarray]:
    """The ``wanted`` outputs by name; those of BYTES are arrays of objects that hold bytes."""
    return {name: _MAKERS[name](found, info) for name in OUTPUT_NAMES if name in wanted}


def _texts(values: list[str]) -> np.ndarray:
    found = np.empty((1, len(values)), object)
    found[0, :] = [value.encode("utf-8") for value in values]
    return found


def _names(found: Detections, info: ModelInfo) -> np.ndarray:
    return _texts([info.classes[label].name for label in found.labels])


def _masks(found: Detections, _info: ModelInfo) -> np.ndarray:
    box = found.letterbox
    rles: list[Mapping[str, Any]] = list(rois_to_rles(found.masks, box.source_height, box.source_width))
    return _texts([json.dumps(rle, separators=(",", ":")) for rle in rles])


_MAKERS: dict[str, Callable[[Detections, ModelInfo], np.ndarray]] = {
    "boxes": lambda found, _info: found.boxes[None].astype(np.float32),
    "scores": lambda found, _info: found.scores[None].astype(np.float32),
    "labels": lambda found, _info: found.labels[None].astype(np.int64),
    "category_ids": lambda found, _info: found.category_ids[None].astype(np.int64),
    "class_names": _names,
    "masks": _masks,
    "spent": lambda found, _info: np.array([[len(found.tile_ids)]], np.int64),
}
