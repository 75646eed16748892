"""DecodeNMS, version 1, and the box decode of the whole project: what they mean, in NumPy.

Box decode: an anchor has a centre (pixels) and a stride; the head gives four distances in strides, left, top, right, bottom, all
>= 0. The box is x1 = cx - l * stride, y1 = cy - t * stride, x2 = cx + r * stride, y2 = cy + b * stride (FCOS, Tian et al. 2019).

DecodeNMS: an anchor is one candidate, with its best class (the lower one of equals) and that class's score. Candidates with
a score > ``score`` enter; of each pyramid level (stride 8, 16, 32) at most the ``pre_nms`` best. Then greedy suppression within a
class, from the best score down: a kept box removes the later ones whose IoU with it is > ``iou``. Equal scores: the lower anchor
goes first, both in ``pre_nms`` and in the suppression. The best ``max_detections`` leave, score descending; the rest is padding:
label and id -1, score and box 0. At most 1000 rows enter the suppression, so pre_nms <= 333.
"""

from __future__ import annotations

import numpy as np

from apex_plugins.spec import OpSpec

STRIDES = (8, 16, 32)
MAX_PRE_NMS = 333

SPEC = OpSpec(
    name="DecodeNMS",
    inputs={"scores": "float", "ltrb": "float", "centres": "float", "strides": "float"},
    outputs={"boxes": "float", "best_scores": "float", "labels": "int64", "candidate_ids": "int64"},
    attributes={"max_detections": int, "pre_nms": int, "score": float, "iou": float},
)


def decode_boxes(ltrb_BA4: np.ndarray, centres_A2: np.ndarray, strides_A: np.ndarray) -> np.ndarray:
    """Distances in strides to corners in pixels, [B,A,4] xyxy."""
    steps_A1 = strides_A[..., None]
    return np.concatenate([centres_A2 - ltrb_BA4[..., :2] * steps_A1, centres_A2 + ltrb_BA4[..., 2:] * steps_A1], axis=-1)


def output_shape(scores: tuple[int, ...], max_detections: int) -> tuple[tuple[int, ...], ...]:
    """Shapes of boxes, scores, labels and candidate ids for scores [B,A,nc]."""
    flat = (scores[0], max_detections)
    return (*flat, 4), flat, flat, flat


def decode_nms(
    scores_BAC: np.ndarray,
    ltrb_BA4: np.ndarray,
    centres_A2: np.ndarray,
    strides_A: np.ndarray,
    *,
    max_detections: int,
    pre_nms: int,
    score: float,
    iou: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """boxes [B,M,4], scores [B,M], labels int64 [B,M], candidate_ids int64 [B,M]. Raises ValueError on what does not fit."""
    _check(scores_BAC, ltrb_BA4, centres_A2, strides_A, max_detections, pre_nms, score, iou)
    shapes = output_shape(scores_BAC.shape, max_detections)
    out_boxes, out_scores = np.zeros(shapes[0], ltrb_BA4.dtype), np.zeros(shapes[1], scores_BAC.dtype)
    out_labels, out_ids = np.full(shapes[2], -1, np.int64), np.full(shapes[3], -1, np.int64)
    boxes_BA4, best_BA, label_BA = decode_boxes(ltrb_BA4, centres_A2, strides_A), scores_BAC.max(2), scores_BAC.argmax(2)
    for b in range(scores_BAC.shape[0]):
        entering = _entering(best_BA[b], strides_A, pre_nms, score)
        kept = _suppress(entering, boxes_BA4[b], label_BA[b], iou)[:max_detections]
        count = len(kept)
        out_boxes[b, :count], out_scores[b, :count] = boxes_BA4[b, kept], best_BA[b, kept]
        out_labels[b, :count], out_ids[b, :count] = label_BA[b, kept], kept
    return out_boxes, out_scores, out_labels, out_ids


def _entering(best_A: np.ndarray, strides_A: np.ndarray, pre_nms: int, score: float) -> list[int]:
    chosen: list[int] = []
    for stride in STRIDES:
        level = [int(a) for a in np.flatnonzero(strides_A == stride) if best_A[a] > score]
        chosen += sorted(level, key=lambda a: (-best_A[a], a))[:pre_nms]
    return sorted(chosen, key=lambda a: (-best_A[a], a))


def _suppress(order: list[int], boxes_A4: np.ndarray, label_A: np.ndarray, iou: float) -> list[int]:
    kept: list[int] = []
    for a in order:
        if not any(label_A[a] == label_A[other] and overlaps(boxes_A4[a], boxes_A4[other], iou) for other in kept):
            kept.append(a)
    return kept


def overlaps(one_4: np.ndarray, other_4: np.ndarray, iou: float) -> bool:
    """Whether the IoU of two boxes exceeds ``iou``: intersection > iou * union, so that two empty boxes do not overlap."""
    size = np.maximum(np.minimum(one_4[2:], other_4[2:]) - np.maximum(one_4[:2], other_4[:2]), 0)
    shared = size[0] * size[1]
    areas = (one_4[2] - one_4[0]) * (one_4[3] - one_4[1]) + (other_4[2] - other_4[0]) * (other_4[3] - other_4[1])
    return bool(shared > one_4.dtype.type(iou) * (areas - shared))


def _check(
    scores: np.ndarray,
    ltrb: np.ndarray,
    centres: np.ndarray,
    strides: np.ndarray,
    max_detections: int,
    pre_nms: int,
    score: float,
    iou: float,
) -> None:
    if scores.ndim != 3 or 0 in scores.shape:
        raise ValueError(f"DecodeNMS: scores must be [B,A,classes] and not empty, got shape {scores.shape}")
    batch, anchors, _ = scores.shape
    for name, value, wanted in (
        ("ltrb", ltrb, (batch, anchors, 4)),
        ("centres", centres, (anchors, 2)),
        ("strides", strides, (anchors,)),
    ):
        if value.shape != wanted:
            raise ValueError(f"DecodeNMS: {name} must have shape {wanted}, got {value.shape}")
    if not np.isin(strides, STRIDES).all() or (np.diff(strides) < 0).any():
        raise ValueError(f"DecodeNMS: strides must be among {STRIDES} and ascend with the anchor index")
    if not (np.isfinite(scores).all() and np.isfinite(ltrb).all() and (ltrb >= 0).all()):
        raise ValueError("DecodeNMS: scores must be finite, ltrb finite and >= 0")
    if max_detections < 1 or not 1 <= pre_nms <= MAX_PRE_NMS:
        raise ValueError(
            f"DecodeNMS: max_detections must be >= 1 and pre_nms in 1..{MAX_PRE_NMS}, got {max_detections}, {pre_nms}"
        )
    if not 0 <= score < 1 or not 0 <= iou <= 1:
        raise ValueError(f"DecodeNMS: score must lie in [0, 1) and iou in [0, 1], got {score}, {iou}")
