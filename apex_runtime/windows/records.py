"""What a scene gave, as COCO results and as tiles, in pixels of the scene."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.evaluation.results import result
from apex_runtime.model_info import ModelInfo
from apex_runtime.postprocess.rle import rois_to_rles
from apex_runtime.postprocess.tiles import Tile, looked_tiles
from apex_runtime.windows.found import Found
from apex_runtime.windows.passes import LookedWindow

_UNPACKED = 1024  # masks at a time


def tiles_of_window(looked: LookedWindow, info: ModelInfo) -> list[Tile]:
    """The tiles of the last look at a window."""
    found = looked_tiles(looked.tile_ids, looked.tile_levels, info.tiles, looked.letterbox)
    return [tile._replace(bbox=_moved(tile.bbox, looked.window.x, looked.window.y)) for tile in found]


def _moved(bbox: tuple[float, float, float, float], x: int, y: int) -> tuple[float, float, float, float]:
    return round(bbox[0] + x, 3), round(bbox[1] + y, 3), bbox[2], bbox[3]


def coco_results(found: Found, size: tuple[int, int], info: ModelInfo, image_id: int) -> Iterator[tuple[dict[str, Any], RoiMask]]:
    """One COCO result per object, with its mask; ``size`` is (height, width) of the scene."""
    boxes, scores, labels = found.boxes.tolist(), found.scores.tolist(), found.labels.tolist()
    for first in range(0, len(found), _UNPACKED):
        masks = [packed.unpack() for packed in found.masks[first : first + _UNPACKED]]
        for rank, (mask, segmentation) in enumerate(zip(masks, rois_to_rles(masks, *size), strict=True), first):
            category = info.classes[labels[rank]].id
            yield result(image_id, category, boxes[rank], scores[rank], segmentation), mask
