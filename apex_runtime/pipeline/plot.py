"""The annotated picture of one result of the Python interface."""

from __future__ import annotations

import numpy as np

from apex_runtime.pipeline.annotate import Picture, draw
from apex_runtime.pipeline.pictures import shapes_of
from apex_runtime.pipeline.records import tile_boxes
from apex_runtime.postprocess.tiles import tile_records
from apex_runtime.result import Result


def plot_result(result: Result, image: np.ndarray, min_score: float) -> np.ndarray:
    """Boxes and masks that score at least ``min_score`` and the tiles on ``image``, uint8 [h,w,3] RGB; a picture like it."""
    picture = Picture.of(image)
    shapes = shapes_of(result, picture, result.info, min_score, 0)
    tiles, *finer = tile_boxes(tile_records(result.tile_ids, result.tile_levels, result.info.tiles, result.letterbox))
    legend = f"looked closely at {result.budget.spent} of {result.n_content} tiles (budget {result.budget.asked})"
    return draw(picture, shapes, tiles, f"{legend}   objects: {len(shapes)}", finer=finer)
