"""After the graph: the record of an image, a frame or a scene, and its annotated picture."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from apex_runtime.clock import milliseconds_since
from apex_runtime.pipeline.annotate import Shape
from apex_runtime.pipeline.pictures import draw_record, shapes_of
from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.pipeline.records import annotation_records, image_record
from apex_runtime.pipeline.scenes import LookedLarge, record_large
from apex_runtime.pipeline.stages import Looked, RunOptions


def record(looked: LookedLarge | Looked, predictor: Predictor, options: RunOptions) -> tuple[dict[str, Any], np.ndarray | None]:
    """The line for the journal, and the picture, uint8 RGB, if one is asked for. Raises BackendError."""
    if isinstance(looked, LookedLarge):
        return record_large(looked, predictor.info, options)
    started = time.perf_counter()
    loaded, info = looked.loaded, predictor.info
    annotations: list[dict[str, Any]] = []
    shapes: list[Shape] = []
    drawing_ms = 0.0
    for found in predictor.iter_finish(looked.outputs, loaded.prepared, options.wanted):
        annotations += annotation_records(found, loaded.image_id, len(annotations))
        drawing = time.perf_counter()
        if loaded.picture is not None:
            shapes += shapes_of(found, loaded.picture, info, options.draw_score, len(shapes))
        drawing_ms += milliseconds_since(drawing)
    post_ms = milliseconds_since(started) - drawing_ms
    line = image_record(looked, info.tiles, options.budget.asked, annotations, post_ms)
    if loaded.picture is None:
        return line, None
    keep_size = loaded.frame is not None
    return line, draw_record(line, loaded.picture, shapes, loaded.prepared.n_content, info, loaded.steering, keep_size)
