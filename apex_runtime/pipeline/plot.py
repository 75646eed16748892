"""The annotated picture of one result of the Python interface."""

from __future__ import annotations

import numpy as np

from apex_runtime.pipeline.annotate import Picture, draw
from apex_runtime.pipeline.stages import tile_boxes
from apex_runtime.postprocess.tiles import tile_records
from apex_runtime.result import Result


def plot_result(result: Result, image: np.ndarray, min_score: float) -> np.ndarray:
    """Boxes and masks that score at least ``min_score`` and the tiles on ``image``, uint8 [h,w,3] RGB; a picture like it."""
    picture = Picture.of(image)
    strong = np.flatnonzero(result.scores >= min_score).tolist()
    shapes = [picture.shape(result.boxes[i], result.masks[i], _text(result, i), rank) for rank, i in enumerate(strong)]
    tiles, *finer = tile_boxes(tile_records(result.tile_ids, result.tile_levels, result.info.tiles, result.letterbox))
    legend = f"looked closely at {result.budget.spent} of {result.n_content} tiles (budget {result.budget.asked})"
    return draw(picture, shapes, tiles, f"{legend}   objects: {len(shapes)}", finer=finer)


def _text(result: Result, index: int) -> str:
    return f"{result.names[result.labels[index]]} {result.scores[index]:.2f}"
