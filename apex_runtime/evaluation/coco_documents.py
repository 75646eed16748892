"""Ground truth and results as an evaluator needs them, checked before they reach C code that trusts them.

Results: https://cocodataset.org/#format-results.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from apex_runtime.data.coco.masks import has_segmentation, malformed
from apex_runtime.data.findings import shown
from apex_runtime.errors import DataError
from apex_runtime.evaluation.rle_check import sound_rles
from apex_runtime.postprocess.rle import decompress_counts

Entry = dict[str, Any]
_REMEDY = "Write them again as COCO results: image_id, category_id, score, bbox [x, y, width, height], segmentation."
_MASKS = "Write the masks again, each in the size of its image."


def check_results(ground_truth: Entry, results: Sequence[Entry], iou_types: Sequence[str]) -> None:
    """Raise DataError, naming the first offenders by their place from 1, when results do not fit the ground truth.

    Refused: ids that the ground truth does not have, scores and boxes that are no finite numbers, boxes of negative size, masks
    that are none or of another size than their image; and results without the box or the mask that ``iou_types`` need.
    """
    _check_each(results, _malformed_entry, _REMEDY)
    _check_ids(results, "image_id", {entry["id"] for entry in ground_truth["images"]}, "images")
    _check_ids(results, "category_id", {entry["id"] for entry in ground_truth["categories"]}, "categories")
    for iou_type in iou_types:
        field = "segmentation" if iou_type == "segm" else "bbox"
        lacking = sum(not _has(entry, field) for entry in results)
        if lacking:
            message = f"{lacking} of {len(results)} results have no {field}."
            raise DataError(message, f"{iou_type} figures need one in every result.")
    _check_each(results, _malformed_box, _REMEDY)  # for masks too: the box gives the area
    if "segm" in iou_types:
        sizes = {entry["id"]: (int(entry["height"]), int(entry["width"])) for entry in ground_truth["images"]}
        _check_each(results, lambda entry: _malformed_mask(entry, *sizes[entry["image_id"]]), _MASKS)
        _check_runs(results, {image_id: height * width for image_id, (height, width) in sizes.items()})


def _check_runs(results: Sequence[Entry], pixels: dict[Any, int]) -> None:
    texts = [(place, entry) for place, entry in enumerate(results, start=1) if _is_text(entry["segmentation"])]
    sound = sound_rles([entry["segmentation"]["counts"] for _, entry in texts], [pixels[e["image_id"]] for _, e in texts])
    for (place, entry), good in zip(texts, sound.tolist(), strict=True):
        if not good:
            reason = _broken_counts(entry["segmentation"]["counts"], pixels[entry["image_id"]])
            raise DataError(f"result {place}: {reason} ({int((~sound).sum())} masks are broken).", _MASKS)


def _is_text(segmentation: Any) -> bool:
    return isinstance(segmentation, dict) and not isinstance(segmentation["counts"], list)


def kinds_of(results: Sequence[Entry]) -> tuple[str, ...]:
    """The kinds of overlap to measure: of boxes where results have boxes, of masks where they have masks; no results: both.

    Raises DataError when they have neither.
    """
    fields = {"bbox": "bbox", "segm": "segmentation"}
    kinds = tuple(kind for kind, field in fields.items() if not results or any(_has(entry, field) for entry in results))
    if not kinds:
        raise DataError(f"none of {len(results)} results has a bbox or a segmentation.", _REMEDY)
    return kinds


def truth_annotations(ground_truth: Entry, iou_type: str) -> list[Entry]:
    """Annotations as evaluators take them: copies with area and iscrowd, ids from 1 (an id of 0 would read as "no match").

    For masks, an object that has none becomes an ignored region of its box: what is found there counts neither way.
    """
    prepared = []
    for number, entry in enumerate(ground_truth["annotations"], start=1):
        annotation = {**entry, "id": number, "iscrowd": int(bool(entry.get("iscrowd")))}
        if not _is_number(entry.get("area")):
            annotation["area"] = entry["bbox"][2] * entry["bbox"][3]
        if iou_type == "segm" and isinstance(entry.get("segmentation") or [], list):
            parts = [part for part in entry.get("segmentation") or [] if len(part) >= 6]
            annotation["segmentation"] = parts or [_rectangle(entry["bbox"])]
            annotation["iscrowd"] = annotation["iscrowd"] if parts else 1
        prepared.append(annotation)
    return prepared


def result_annotations(ground_truth: Entry, results: Sequence[Entry], iou_type: str) -> list[Entry]:
    """Results as annotations. The area is that of the box where there is one, for masks too: so it is in ``COCO.loadRes``."""
    images = {entry["id"]: entry for entry in ground_truth["images"]}
    prepared = []
    for number, entry in enumerate(results, start=1):
        annotation = {**entry, "id": number, "iscrowd": 0}
        if iou_type == "segm":
            image = images[entry["image_id"]]
            annotation["segmentation"] = as_rle(entry["segmentation"], image["height"], image["width"])
        if _has(entry, "bbox"):
            annotation["area"] = float(entry["bbox"][2] * entry["bbox"][3])
        else:
            annotation["area"] = float(coco_mask.area(annotation["segmentation"]))
        prepared.append(annotation)
    return prepared


def as_rle(segmentation: Any, height: int, width: int) -> Entry:
    """A segmentation that has been checked, polygons or run lengths, as compressed RLE."""
    if isinstance(segmentation, list):
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return coco_mask.frPyObjects(segmentation, height, width)
    return segmentation


def _check_each(results: Sequence[Entry], reason_of: Callable[[Entry], str], remedy: str) -> None:
    reasons = ((place, reason_of(entry)) for place, entry in enumerate(results, start=1))
    faulty = [(place, reason) for place, reason in reasons if reason]
    if faulty:
        more = f" ({len(faulty)} of {len(results)} results are faulty)" if len(faulty) > 1 else ""
        raise DataError(f"result {faulty[0][0]}: {faulty[0][1]}{more}.", remedy)


def _check_ids(results: Sequence[Entry], key: str, known: set[Any], what: str) -> None:
    strange = sorted({entry[key] for entry in results} - known)
    if strange:
        message = f"results name {what} that are not in the ground truth: {key} {shown(strange)}."
        raise DataError(message, "Evaluate on the set that was predicted, with the ids that its annotations use.")


def _malformed_entry(entry: Any) -> str:
    if not isinstance(entry, dict):
        return f"not an object but {entry!r:.60}"
    for key in ("image_id", "category_id"):
        value = entry.get(key)
        if type(value) is not int and (isinstance(value, bool) or not isinstance(value, numbers.Integral)):
            return f"{key} is {entry.get(key)!r:.60}, not an integer"
    return "" if _is_number(entry.get("score")) else f"score is {entry.get('score')!r:.60}, not a finite number"


def _malformed_box(entry: Entry) -> str:
    box: Any = entry.get("bbox")
    if _is_nothing(box):
        return ""
    if not isinstance(box, Sequence | np.ndarray) or len(box) != 4 or not all(map(_is_number, box)):
        return f"bbox is {box!r:.60}, not four finite numbers [x, y, width, height]"
    return "" if box[2] >= 0 and box[3] >= 0 else f"bbox {box!r:.60} has a negative size"


def _malformed_mask(entry: Entry, height: int, width: int) -> str:
    segmentation = entry["segmentation"]
    if isinstance(segmentation, list):
        if not all(isinstance(part, list) and len(part) >= 6 and all(map(_is_number, part)) for part in segmentation):
            return "a polygon of the segmentation has no three points of finite numbers"
        return malformed(segmentation, height, width)
    if not isinstance(segmentation, dict):
        return f"the segmentation is {segmentation!r:.60}, neither polygons nor an RLE"
    if not isinstance(segmentation.get("counts"), bytes):
        reason = malformed({**segmentation, "size": _plain(segmentation.get("size"))}, height, width)
        if reason:
            return reason
    elif _plain(segmentation.get("size")) != [height, width]:
        return malformed({"size": segmentation.get("size"), "counts": ""}, height, width)
    return _broken_counts(segmentation["counts"], height * width) if isinstance(segmentation["counts"], list) else ""


def _plain(size: Any) -> Any:
    return list(size) if isinstance(size, tuple) else size


def _broken_counts(counts: Any, pixels: int) -> str:
    try:
        lengths = np.asarray(counts, np.int64) if isinstance(counts, list) else decompress_counts(counts)
    except (ValueError, OverflowError) as error:
        return f"broken RLE: {error}"
    if lengths.size and (lengths.min() < 0 or lengths.max() > pixels):
        return "broken RLE: a run length is negative or longer than the image"
    return "" if lengths.sum() == pixels else f"broken RLE: run lengths cover {lengths.sum()} pixels, the image has {pixels}"


def _has(entry: Entry, field: str) -> bool:
    value = entry.get(field)
    return has_segmentation(value) if field == "segmentation" else not _is_nothing(value)


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, Sequence) and len(value) == 0)


def _is_number(value: Any) -> bool:
    if type(value) is float or type(value) is int:  # nearly all: the general question takes ten times as long
        return math.isfinite(value)
    return not isinstance(value, bool) and isinstance(value, numbers.Real) and math.isfinite(value)


def _rectangle(box: Sequence[float]) -> list[float]:
    x, y, w, h = box
    return [x, y, x + w, y, x + w, y + h, x, y + h]
