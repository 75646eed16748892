"""The three stages of a run, each a function of one image or one batch: read, look, record. ``runner`` lets them overlap."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apex_runtime.data.image import decode_image
from apex_runtime.data.sources import SourceItem
from apex_runtime.detections import Detections
from apex_runtime.evaluation.results import detections_to_results
from apex_runtime.model_info import ModelInfo, TileInfo
from apex_runtime.pipeline.annotate import Picture, Shape, draw, write_png
from apex_runtime.pipeline.predictor import Filter, Predictor, Prepared
from apex_runtime.pipeline.results import annotation_id, picture_path
from apex_runtime.postprocess.letterbox import Letterbox
from apex_runtime.routing.budget import Budget


@dataclass(frozen=True)
class RunOptions:
    """What a run does with every image."""

    budget: Budget
    wanted: Filter
    draw_score: float = 0.3
    batch: int = 1


@dataclass(frozen=True, eq=False)
class Loaded:
    """An image that was read: ready for the graph, and as a picture to draw on. ``decode_ms`` covers reading and letterboxing."""

    image_id: int
    file_name: str
    width: int
    height: int
    prepared: Prepared
    picture: Picture
    decode_ms: float


@dataclass(frozen=True, eq=False)
class Looked:
    """An image the graph has seen. ``graph_ms`` is its share of the batch."""

    loaded: Loaded
    outputs: dict[str, np.ndarray]
    graph_ms: float


def read(item: SourceItem, image_id: int, predictor: Predictor, budget: Budget) -> Loaded:
    """Decode and letterbox one file. Raises ImageError, UsageError."""
    started = time.perf_counter()
    image = decode_image(item.path)
    prepared = predictor.prepare(image, budget)
    decode_ms = _milliseconds_since(started)
    height, width = image.shape[:2]
    return Loaded(image_id, item.relative, width, height, prepared, Picture.of(image), decode_ms)


def look(batch: Sequence[Loaded], predictor: Predictor) -> list[Looked]:
    """One graph call for images of equal K. Raises BackendError."""
    started = time.perf_counter()
    outputs = predictor.run([item.prepared for item in batch])
    share = _milliseconds_since(started) / len(batch)
    return [Looked(item, found, share) for item, found in zip(batch, outputs, strict=True)]


def record(looked: Looked, predictor: Predictor, options: RunOptions, folder: Path) -> dict[str, Any]:
    """Post-process one image, write its picture, and return its line for the journal. Raises BackendError, OSError.

    ``milliseconds.total`` is the work for this image (decode + graph + post), not the time it waited in queues; the drawing of
    the picture is in none of them.
    """
    started = time.perf_counter()
    loaded = looked.loaded
    annotations: list[dict[str, Any]] = []
    shapes: list[Shape] = []
    drawing_ms = 0.0
    for found in predictor.iter_finish(looked.outputs, loaded.prepared, options.wanted):
        annotations += _annotations(found, loaded, predictor.info, len(annotations))
        drawing = time.perf_counter()
        shapes += _shapes(found, loaded.picture, predictor.info, options.draw_score, len(shapes))
        drawing_ms += _milliseconds_since(drawing)
    post_ms = _milliseconds_since(started) - drawing_ms
    line = _line(looked, predictor.info.tiles, options, annotations, post_ms)
    picture = draw(
        loaded.picture,
        shapes,
        [tile["bbox"] for tile in line["tiles"]],
        _legend(line, loaded.prepared, len(shapes), predictor.info),
    )
    write_png(folder / picture_path(loaded.file_name), picture)
    return line


def tile_records(ids_K: np.ndarray, levels_K: np.ndarray, tiles: TileInfo, letterbox: Letterbox) -> list[dict[str, Any]]:
    """The tiles that were looked at as ``{id, level, bbox}``, bbox xywh in source pixels, cut to the image."""
    scale_y, scale_x = letterbox.scales
    records = []
    for identity, level in zip(ids_K.tolist(), levels_K.tolist(), strict=True):
        row, col = divmod(identity, tiles.cols)
        x1, y1 = col * tiles.tile / scale_x, row * tiles.tile / scale_y
        x2 = min(x1 + tiles.tile / scale_x, letterbox.source_width)
        y2 = min(y1 + tiles.tile / scale_y, letterbox.source_height)
        bbox = [round(value, 3) for value in (x1, y1, max(0.0, x2 - x1), max(0.0, y2 - y1))]
        records.append({"id": identity, "level": level, "bbox": bbox})
    return records


def _annotations(found: Detections, loaded: Loaded, info: ModelInfo, first_rank: int) -> list[dict[str, Any]]:
    """COCO result records of one piece of an image's detections, whose best has the rank ``first_rank``."""
    return [
        {"id": annotation_id(loaded.image_id, rank, info.max_detections), **entry, "area": mask.area, "iscrowd": 0}
        for rank, (entry, mask) in enumerate(
            zip(detections_to_results(found, loaded.image_id), found.masks, strict=True), first_rank
        )
    ]


def _shapes(found: Detections, picture: Picture, info: ModelInfo, draw_score: float, first: int) -> list[Shape]:
    """What of these detections is drawn; colours go on from ``first``. A class that is the only one is named in the legend."""
    shapes: list[Shape] = []
    for box_4, score, label, mask in zip(found.boxes, found.scores, found.labels, found.masks, strict=True):
        if score >= draw_score:
            text = f"{score:.2f}" if len(info.classes) == 1 else f"{info.classes[label].name} {score:.2f}"
            shapes.append(picture.shape(box_4, mask, text, first + len(shapes)))
    return shapes


def _line(
    looked: Looked, tiles: TileInfo, options: RunOptions, annotations: list[dict[str, Any]], post_ms: float
) -> dict[str, Any]:
    loaded = looked.loaded
    outputs = looked.outputs
    parts = {"decode": loaded.decode_ms, "graph": looked.graph_ms, "post": post_ms}
    return {
        "id": loaded.image_id,
        "file_name": loaded.file_name,
        "width": loaded.width,
        "height": loaded.height,
        "tiles": tile_records(outputs["tile_ids"], outputs["tile_levels"], tiles, loaded.prepared.letterbox),
        "budget": {"asked": options.budget.asked, "tiles": loaded.prepared.tiles, "spent": len(outputs["tile_ids"])},
        "milliseconds": {name: round(value, 3) for name, value in (parts | {"total": sum(parts.values())}).items()},
        "annotations": annotations,
    }


def _legend(line: dict[str, Any], prepared: Prepared, shown: int, info: ModelInfo) -> str:
    budget = line["budget"]
    what = f" ({info.classes[0].name})" if len(info.classes) == 1 else ""
    objects = ("1 object" if shown == 1 else f"{shown} objects") + what
    looked = f"looked closely at {budget['spent']} of {prepared.n_content} tiles (budget {budget['asked']})"
    return f"{looked}   {objects}   {line['milliseconds']['total']:.0f} ms"


def _milliseconds_since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
