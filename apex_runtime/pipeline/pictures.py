"""What is drawn of an image: its objects, the tiles that were looked at, the regions that steered the look, a legend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.detections import Detections
from apex_runtime.model_info import ModelInfo
from apex_runtime.outputs.formats import ANNOTATED, relative_path
from apex_runtime.pipeline.annotate import Picture, Shape, draw, write_png
from apex_runtime.pipeline.records import tile_boxes
from apex_runtime.pipeline.stages import Done, Steering
from apex_runtime.postprocess.letterbox import Letterbox
from apex_runtime.postprocess.rle import rle_to_roi
from apex_runtime.routing.grid import content_tiles


def draw_record(
    record: dict[str, Any],
    picture: Picture,
    shapes: Sequence[Shape],
    n_content: int,
    info: ModelInfo,
    steering: Steering,
    keep_size: bool = False,
) -> np.ndarray:
    """The annotated picture, uint8 RGB, of a record whose image has ``n_content`` tiles. ``keep_size``: of a frame."""
    tiles, *finer = tile_boxes(record["tiles"])
    legend = _legend(record, n_content, len(shapes), info)
    regions = [
        *((ring, True) for part in steering.look for ring in part),
        *((ring, False) for part in steering.ignore for ring in part),
    ]
    return draw(picture, shapes, tiles, legend, keep_size=keep_size, finer=finer, regions=regions)


def redraw(done: Done, info: ModelInfo, draw_score: float) -> np.ndarray:
    """The annotated picture of a frame, uint8 RGB, from its record instead of from the graph."""
    record, picture = done.record, Picture(done.pixels, 1.0, 1.0)
    box = Letterbox(record["height"], record["width"], info.input.height, info.input.width)
    shapes = shapes_of_record(record, picture, info, draw_score)
    return draw_record(record, picture, shapes, int(content_tiles(box, info.tiles).sum()), info, done.steering, keep_size=True)


def save_picture(folder: Path, file_name: str, picture: np.ndarray) -> None:
    """Write the annotated picture of an image into the output folder. Raises OSError."""
    write_png(folder / relative_path(ANNOTATED, file_name), picture)


def shapes_of(found: Detections, picture: Picture, info: ModelInfo, draw_score: float, first: int) -> list[Shape]:
    """What of these detections is drawn; colours go on from ``first``. A class that is the only one is named in the legend."""
    shapes: list[Shape] = []
    for box_4, score, label, mask in zip(found.boxes, found.scores, found.labels, found.masks, strict=True):
        if score >= draw_score:
            shapes.append(picture.shape(box_4, mask, _text(info, int(label), score), first + len(shapes)))
    return shapes


def shapes_of_record(record: dict[str, Any], picture: Picture, info: ModelInfo, draw_score: float) -> list[Shape]:
    """What of a record is drawn."""
    strong = [item for item in record["annotations"] if item["score"] >= draw_score]
    return [_shape_again(item, picture, info, rank) for rank, item in enumerate(strong)]


def _shape_again(item: dict[str, Any], picture: Picture, info: ModelInfo, rank: int) -> Shape:
    x, y, width, height = item["bbox"]
    label = [category.id for category in info.classes].index(item["category_id"])
    mask = rle_to_roi(item["segmentation"]) or RoiMask(0, 0, np.zeros((1, 1), np.uint8))
    return picture.shape(np.array([x, y, x + width, y + height]), mask, _text(info, label, item["score"]), rank)


def _text(info: ModelInfo, label: int, score: float) -> str:
    return f"{score:.2f}" if len(info.classes) == 1 else f"{info.classes[label].name} {score:.2f}"


def _legend(record: dict[str, Any], n_content: int, shown: int, info: ModelInfo) -> str:
    budget = record["budget"]
    what = f" ({info.classes[0].name})" if len(info.classes) == 1 else ""
    objects = ("1 object" if shown == 1 else f"{shown} objects") + what
    windows = f" of {len(record['windows'])} windows" if "windows" in record else ""
    looked = f"looked closely at {len(record['tiles'])} of {n_content} tiles{windows} (budget {budget['asked']})"
    return f"{looked}   {objects}"
