"""The raw outputs of the graph for one image as detections in its own pixels."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from apex_runtime.backends.reasons import ReasonCode, backend_error
from apex_runtime.detections import Detections
from apex_runtime.model_info import ModelInfo
from apex_runtime.postprocess.letterbox import Letterbox
from apex_runtime.postprocess.masks import assemble_masks
from apex_runtime.routing.grid import content_tiles

PADDING = -1  # label of an empty place
_FLOAT_OUTPUTS = ("boxes", "scores", "mask_coefficients", "mask_prototypes")


def detections_of_image(
    outputs: Mapping[str, np.ndarray],
    letterbox: Letterbox,
    info: ModelInfo,
    *,
    min_score: float = 0.001,
    max_detections: int | None = None,
    labels: Collection[int] | None = None,
) -> Detections:
    """Keep what scores at least ``min_score`` and has one of ``labels`` (all when None), at most ``max_detections``, best first.

    ``outputs`` are those of DESIGN section 5 without their batch axis: boxes [M,4] and scores [M] (descending), labels [M],
    mask_coefficients [M,P], mask_prototypes [P,h,w], tile_ids [K], tile_levels [K]. Boxes are cut to the image; those without
    area in it are left out. Masks are made for what is kept only.

    Places that NMS left empty (label -1, score 0) are never kept.

    Raises BackendError, naming the output, when one is not finite or a label is unknown: neither is ever repaired.
    """
    _check(outputs, info)
    boxes = letterbox.boxes_to_source(outputs["boxes"])
    kept = (outputs["scores"] >= min_score) & (outputs["labels"] >= 0)
    kept &= (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    if labels is not None:
        kept &= np.isin(outputs["labels"], list(labels))
    index = np.flatnonzero(kept)[:max_detections]
    found = outputs["labels"][index].astype(np.int64)
    ids = np.array([category.id for category in info.classes], np.int64)
    return Detections(
        boxes=boxes[index],
        scores=outputs["scores"][index].astype(np.float32),
        labels=found,
        category_ids=ids[found],
        masks=assemble_masks(outputs["mask_coefficients"][index], outputs["mask_prototypes"], outputs["boxes"][index], letterbox),
        tile_ids=outputs["tile_ids"].astype(np.int64),
        tile_levels=outputs["tile_levels"].astype(np.int64),
        n_content=int(content_tiles(letterbox, info.tiles).sum()),
        letterbox=letterbox,
    )


def _check(outputs: Mapping[str, np.ndarray], info: ModelInfo) -> None:
    for name in _FLOAT_OUTPUTS:
        bad = int(np.count_nonzero(~np.isfinite(outputs[name])))
        if bad:
            message = f"graph output {name!r}: {bad} of {outputs[name].size} values are NaN or infinite."
            raise backend_error(ReasonCode.NON_FINITE_OUTPUT, message)
    labels = outputs["labels"]
    if info.decode == "nms":  # empty places of a list that NMS left short
        labels = labels[(labels != PADDING) | (outputs["scores"] != 0)]
    if labels.size and (labels.min() < 0 or labels.max() >= len(info.classes)):
        message = f"graph output 'labels': values {labels.min()}..{labels.max()}, the model has {len(info.classes)} classes."
        raise backend_error(ReasonCode.EXECUTION_FAILED, message)
