"""The records of a run: what an image or a frame gave, as a line of results.jsonl."""

from __future__ import annotations

from typing import Any

from apex_runtime.backends.session import in_all, per_level
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.detections import Detections
from apex_runtime.evaluation.results import detections_to_results
from apex_runtime.model_info import TileInfo
from apex_runtime.pipeline.results import annotation_id
from apex_runtime.pipeline.stages import Frame, Looked
from apex_runtime.postprocess.tiles import tile_records


def image_record(
    looked: Looked, tiles: TileInfo, asked: str, annotations: list[dict[str, Any]], post_ms: float
) -> dict[str, Any]:
    """The record of an image or a frame. ``milliseconds.total`` is the work for it (decode + graph + post), not the time that it
    waited in queues; the drawing of the picture is in none of them."""
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
            "asked": asked,
            "tiles": in_all(loaded.prepared.tiles),
            **({"per_level": list(per_level(loaded.prepared.tiles))} if tiles.depth > 1 else {}),
            "spent": len(outputs["tile_ids"]),
        },
        "milliseconds": rounded(parts),
        "annotations": annotations,
    }


def tile_boxes(records: list[dict[str, Any]]) -> list[list[list[float]]]:
    """The boxes of ``tile_records`` level by level, the coarsest first."""
    boxes: list[list[list[float]]] = [[] for _ in range(1 + max((tile["level"] for tile in records), default=0))]
    for tile in records:
        boxes[tile["level"]].append(tile["bbox"])
    return boxes


def annotation_records(found: Detections, image_id: int, first_rank: int) -> list[dict[str, Any]]:
    """The annotations of one piece of an image's detections, whose best has the rank ``first_rank``."""
    pairs = zip(detections_to_results(found, image_id), found.masks, strict=True)
    return [annotation_record(entry, mask, rank) for rank, (entry, mask) in enumerate(pairs, first_rank)]


def annotation_record(entry: dict[str, Any], mask: RoiMask, rank: int) -> dict[str, Any]:
    """A COCO result as the annotation of rank ``rank``, from 0, of its image."""
    return {"id": annotation_id(entry["image_id"], rank), **entry, "area": mask.area, "iscrowd": 0}


def rounded(milliseconds: dict[str, float]) -> dict[str, float]:
    """The parts to a microsecond, and their sum as ``total``."""
    return {name: round(value, 3) for name, value in (milliseconds | {"total": sum(milliseconds.values())}).items()}


def _place(frame: Frame | None) -> dict[str, Any]:
    return {"clip": frame.clip.name, "frame_index": frame.index, "seconds": frame.seconds} if frame else {}
