"""Images that are cut into windows, as items of a run: opened, looked at, recorded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from apex_runtime.data.scenes.scene import Scene, forget_decoded, open_scene
from apex_runtime.data.scenes.windows import Window
from apex_runtime.data.sources import SourceItem
from apex_runtime.model_info import ModelInfo
from apex_runtime.pipeline.lanes import Lanes
from apex_runtime.pipeline.mosaic import Mosaic
from apex_runtime.pipeline.pictures import draw_record, shapes_of_record
from apex_runtime.pipeline.predictor import Predictor, Prepared
from apex_runtime.pipeline.records import annotation_record, rounded
from apex_runtime.pipeline.stages import RunOptions, Steering
from apex_runtime.windows.found import Found
from apex_runtime.windows.look import SceneLook, look_at_scene
from apex_runtime.windows.records import coco_results, tiles_of_window


@dataclass(frozen=True, eq=False)
class Large:
    """A scene with its windows; nothing of it is read yet but the header."""

    image_id: int
    file_name: str
    scene: Scene
    windows: list[Window]
    steering: Steering


@dataclass(frozen=True, eq=False)
class LookedLarge:
    """A scene the graph has seen, and what was kept to draw on, if anything is drawn."""

    large: Large
    look: SceneLook
    mosaic: Mosaic | None
    frame: None = None  # frames of clips are never cut

    @property
    def file_name(self) -> str:
        """Of the scene."""
        return self.large.file_name


def open_large(item: SourceItem, image_id: int, predictor: Predictor, options: RunOptions) -> Large | None:
    """The scene in an image file, when it is to be cut. Raises ImageError, DataError."""
    if options.windowing is None or item.clip is not None:
        return None
    scene = open_scene(item.path)
    windows = options.windowing.cut(scene.height, scene.width, predictor.info.input)
    return Large(image_id, item.relative, scene, windows, options.steering(item)) if windows else None


def look_at_large(large: Large, predictor: Predictor, options: RunOptions, lanes: Lanes) -> LookedLarge:
    """All passes over a scene. Raises ImageError, BackendError, UsageError, Interrupted."""
    size = large.scene.height, large.scene.width
    mosaic = Mosaic(*size) if options.draws else None

    def read(window: Window) -> np.ndarray:
        pixels = large.scene.read(window).pixels
        if mosaic is not None:
            mosaic.add(window.x, window.y, pixels)
        return pixels

    def steer(window: Window, prepared: Prepared) -> np.ndarray:
        return large.steering.apply(prepared, predictor, window.x, window.y)

    try:
        found = look_at_scene(predictor, large.windows, size, read, options.budget, options.wanted, steer, options.batch, lanes)
    finally:
        forget_decoded()
    return LookedLarge(large, found, mosaic)


def record_large(looked: LookedLarge, info: ModelInfo, options: RunOptions) -> tuple[dict[str, Any], np.ndarray | None]:
    """The record of a scene, and its annotated picture, uint8 RGB, if one is asked for."""
    large, look = looked.large, looked.look
    annotations = list(_annotations(look.joined(), large, info))
    record = {
        "id": large.image_id,
        "file_name": large.file_name,
        "width": large.scene.width,
        "height": large.scene.height,
        "windows": [
            {"bbox": [w.x, w.y, w.width, w.height], "tiles": len(one.tile_ids)} for one in look.windows for w in (one.window,)
        ],
        "tiles": list(_tiles(look, info)),
        "budget": {"asked": options.budget.asked, "tiles": look.planned, "spent": look.spent, "twice": look.twice},
        "milliseconds": rounded(
            {"decode": look.milliseconds.decode, "graph": look.milliseconds.graph, "post": look.milliseconds.post}
        ),
        "annotations": annotations,
    }
    if looked.mosaic is None:
        return record, None
    picture = looked.mosaic.picture()
    shapes = shapes_of_record(record, picture, info, options.draw_score)
    return record, draw_record(record, picture, shapes, look.n_content, info, large.steering)


def _tiles(look: SceneLook, info: ModelInfo) -> Iterator[dict[str, Any]]:
    """The tiles of the last look at each window, in pixels of the scene."""
    for number, one in enumerate(look.windows):
        for tile in tiles_of_window(one, info):
            yield {"id": tile.id, "level": tile.level, "bbox": list(tile.bbox), "window": number}


def _annotations(found: Found, large: Large, info: ModelInfo) -> Iterator[dict[str, Any]]:
    size = large.scene.height, large.scene.width
    for rank, (entry, mask) in enumerate(coco_results(found, size, info, large.image_id)):
        yield annotation_record(entry, mask, rank)
