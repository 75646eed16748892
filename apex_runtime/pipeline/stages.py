"""The stages of a run, each a function of one image or one batch: read, look, record, save. ``runner`` lets them overlap."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apex_runtime.backends.session import in_all, per_level
from apex_runtime.data.image import decode_image
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.data.sources import Clip, SourceItem
from apex_runtime.detections import Detections
from apex_runtime.evaluation.results import detections_to_results
from apex_runtime.model_info import ModelInfo, TileInfo
from apex_runtime.pipeline.annotate import Picture, Shape, draw, write_png
from apex_runtime.pipeline.predictor import Filter, Predictor, Prepared
from apex_runtime.pipeline.results import annotation_id, picture_path
from apex_runtime.postprocess.letterbox import Letterbox
from apex_runtime.postprocess.rle import rle_to_roi
from apex_runtime.postprocess.tiles import tile_records
from apex_runtime.routing.budget import Budget
from apex_runtime.routing.grid import content_tiles


@dataclass(frozen=True)
class RunOptions:
    """What a run does with every image. ``hysteresis``: the bonus of tiles of the frame before, for the frames of clips."""

    budget: Budget
    wanted: Filter
    draw_score: float = 0.3
    batch: int = 1
    hysteresis: float = 0.0


@dataclass(frozen=True)
class Frame:
    """Where an image stands in its clip: counted from 0, and in seconds after the first frame."""

    clip: Clip
    index: int
    seconds: float


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
    frame: Frame | None = None


@dataclass(frozen=True, eq=False)
class Done:
    """A frame that an earlier run finished, with its record: only to be drawn again, for a clip cannot be appended to."""

    record: dict[str, Any]
    pixels: np.ndarray
    frame: Frame


@dataclass(frozen=True, eq=False)
class Looked:
    """An image the graph has seen. ``graph_ms`` is its share of the batch."""

    loaded: Loaded
    outputs: dict[str, np.ndarray]
    graph_ms: float


def read(item: SourceItem, image_id: int, predictor: Predictor, budget: Budget) -> Loaded:
    """Decode and letterbox one image file. Raises ImageError, UsageError."""
    started = time.perf_counter()
    frame = Frame(item.clip, item.frame_index, round(item.frame_index / item.clip.fps, 6)) if item.clip else None
    return prepare(decode_image(item.path), item.relative, image_id, predictor, budget, started, frame)


def prepare(
    image: np.ndarray,
    file_name: str,
    image_id: int,
    predictor: Predictor,
    budget: Budget,
    started: float,
    frame: Frame | None = None,
) -> Loaded:
    """Letterbox an image, uint8 [h,w,3], whose decoding began at ``started`` (``time.perf_counter``). Raises UsageError."""
    prepared = predictor.prepare(image, budget)
    decode_ms = _milliseconds_since(started)
    picture = Picture(image, 1.0, 1.0) if frame else Picture.of(image)
    return Loaded(image_id, file_name, image.shape[1], image.shape[0], prepared, picture, decode_ms, frame)


def look(batch: Sequence[Loaded], predictor: Predictor) -> list[Looked]:
    """One graph call for images of equal K. Raises BackendError."""
    started = time.perf_counter()
    outputs = predictor.run([item.prepared for item in batch])
    share = _milliseconds_since(started) / len(batch)
    return [Looked(item, found, share) for item, found in zip(batch, outputs, strict=True)]


def record(looked: Looked, predictor: Predictor, options: RunOptions) -> tuple[dict[str, Any], np.ndarray]:
    """Post-process one image: its line for the journal, and its annotated picture, uint8 RGB. Raises BackendError.

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
    legend = _legend(line, loaded.prepared.n_content, len(shapes), predictor.info)
    tiles, *finer = tile_boxes(line["tiles"])
    return line, draw(loaded.picture, shapes, tiles, legend, keep_size=loaded.frame is not None, finer=finer)


def redraw(done: Done, info: ModelInfo, options: RunOptions) -> np.ndarray:
    """The annotated picture of a frame, uint8 RGB, from its record instead of from the graph."""
    line, picture = done.record, Picture(done.pixels, 1.0, 1.0)
    strong = [item for item in line["annotations"] if item["score"] >= options.draw_score]
    shapes = [_shape_again(item, picture, info, rank) for rank, item in enumerate(strong)]
    box = Letterbox(line["height"], line["width"], info.input.height, info.input.width)
    legend = _legend(line, int(content_tiles(box, info.tiles).sum()), len(shapes), info)
    tiles, *finer = tile_boxes(line["tiles"])
    return draw(picture, shapes, tiles, legend, keep_size=True, finer=finer)


def save_picture(folder: Path, file_name: str, picture: np.ndarray) -> None:
    """Write the annotated picture of an image into the output folder. Raises OSError."""
    write_png(folder / picture_path(file_name), picture)


def tile_boxes(records: list[dict[str, Any]]) -> list[list[list[float]]]:
    """The boxes of ``tile_records`` level by level, the coarsest first."""
    boxes: list[list[list[float]]] = [[] for _ in range(1 + max((tile["level"] for tile in records), default=0))]
    for tile in records:
        boxes[tile["level"]].append(tile["bbox"])
    return boxes


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
            shapes.append(picture.shape(box_4, mask, _text(info, int(label), score), first + len(shapes)))
    return shapes


def _shape_again(item: dict[str, Any], picture: Picture, info: ModelInfo, rank: int) -> Shape:
    x, y, width, height = item["bbox"]
    label = [category.id for category in info.classes].index(item["category_id"])
    mask = rle_to_roi(item["segmentation"]) or RoiMask(0, 0, np.zeros((1, 1), np.uint8))
    return picture.shape(np.array([x, y, x + width, y + height]), mask, _text(info, label, item["score"]), rank)


def _text(info: ModelInfo, label: int, score: float) -> str:
    return f"{score:.2f}" if len(info.classes) == 1 else f"{info.classes[label].name} {score:.2f}"


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
        **_place(loaded.frame),
        "tiles": tile_records(outputs["tile_ids"], outputs["tile_levels"], tiles, loaded.prepared.letterbox),
        "budget": {
            "asked": options.budget.asked,
            "tiles": in_all(loaded.prepared.tiles),
            **({"per_level": list(per_level(loaded.prepared.tiles))} if tiles.depth > 1 else {}),
            "spent": len(outputs["tile_ids"]),
        },
        "milliseconds": {name: round(value, 3) for name, value in (parts | {"total": sum(parts.values())}).items()},
        "annotations": annotations,
    }


def _place(frame: Frame | None) -> dict[str, Any]:
    return {"clip": frame.clip.name, "frame_index": frame.index, "seconds": frame.seconds} if frame else {}


def _legend(line: dict[str, Any], n_content: int, shown: int, info: ModelInfo) -> str:
    budget = line["budget"]
    what = f" ({info.classes[0].name})" if len(info.classes) == 1 else ""
    objects = ("1 object" if shown == 1 else f"{shown} objects") + what
    looked = f"looked closely at {budget['spent']} of {n_content} tiles (budget {budget['asked']})"
    return f"{looked}   {objects}   {line['milliseconds']['total']:.0f} ms"


def _milliseconds_since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
