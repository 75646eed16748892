"""Box decode in torch, DecodeNMS in torch (inference only), and the custom op that stands for it while exporting.

Suffixes: B batch, A anchors, C classes, M max_detections, P candidates that enter the suppression.
"""

from __future__ import annotations

import torch
from torch import Tensor

from apex_plugins.decode_nms.reference import STRIDES
from apex_plugins.decode_nms.torch_cuda import decode_nms_kernel, kernel_takes


def decode_boxes(ltrb_BA4: Tensor, centres_A2: Tensor, strides_A: Tensor) -> Tensor:
    """Distances in strides to corners in pixels: x1 = cx - l * stride, ..., y2 = cy + b * stride; [B,A,4] xyxy.

    The one torch definition of the box decode (its meaning: ``reference.decode_boxes``). centres_A2 may also be [B,A,2] and
    strides_A [B,A], for candidates gathered per image.
    """
    steps = strides_A[..., None]
    low = centres_A2 - ltrb_BA4[..., :2] * steps
    high = centres_A2 + ltrb_BA4[..., 2:] * steps
    return torch.cat([low, high], dim=-1)


def decode_nms(
    scores_BAC: Tensor,
    ltrb_BA4: Tensor,
    centres_A2: Tensor,
    strides_A: Tensor,
    max_detections: int,
    pre_nms: int,
    score: float,
    iou: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """boxes [B,M,4], scores [B,M], labels [B,M], candidate_ids [B,M], padded; the meaning is that of ``reference.decode_nms``.

    Inference only: no gradient leaves it. While exporting, the call becomes one ``apex::DecodeNMS`` node; on a GPU the kernels
    run where they can (``torch_cuda.py``), with the same detections.
    """
    if torch.compiler.is_exporting():
        return torch.ops.apex.decode_nms(scores_BAC, ltrb_BA4, centres_A2, strides_A, max_detections, pre_nms, score, iou)
    tensors = (scores_BAC.detach(), ltrb_BA4.detach(), centres_A2.detach(), strides_A.detach())
    function = decode_nms_kernel if kernel_takes(*tensors) else decode_nms_formula
    return function(*tensors, max_detections, pre_nms, score, iou)


def decode_nms_formula(
    scores_BAC: Tensor,
    ltrb_BA4: Tensor,
    centres_A2: Tensor,
    strides_A: Tensor,
    max_detections: int,
    pre_nms: int,
    score: float,
    iou: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The steps of the ONNX body: candidates of each level, boxes, pairwise IoU, one pass over the rows, padding."""
    batch = scores_BAC.shape[0]
    best_BA, label_BA = scores_BAC.max(dim=-1)
    ids_BP = _candidates(best_BA, strides_A, pre_nms)
    best_BP, label_BP = best_BA.gather(1, ids_BP), label_BA.gather(1, ids_BP)
    ltrb_BP4 = ltrb_BA4.gather(1, ids_BP[..., None].expand(-1, -1, 4))
    boxes_BP4 = decode_boxes(ltrb_BP4, centres_A2[ids_BP], strides_A[ids_BP])
    beats_BPP = _overlap(boxes_BP4, iou) & (label_BP[:, :, None] == label_BP[:, None, :])
    alive_BP = best_BP > score
    for row in range(ids_BP.shape[1]):
        alive_BP[:, row + 1 :] &= ~(beats_BPP[:, row, row + 1 :] & alive_BP[:, row : row + 1])
    place_BP = alive_BP.cumsum(1) - 1
    alive_BP &= place_BP < max_detections
    image, _ = slots = torch.nonzero(alive_BP, as_tuple=True)
    target = (image, place_BP[slots])
    boxes, scores = boxes_BP4.new_zeros(batch, max_detections, 4), best_BP.new_zeros(batch, max_detections)
    labels, ids = label_BP.new_full((batch, max_detections), -1), ids_BP.new_full((batch, max_detections), -1)
    boxes[target], scores[target], labels[target], ids[target] = boxes_BP4[slots], best_BP[slots], label_BP[slots], ids_BP[slots]
    return boxes, scores, labels, ids


def _candidates(best_BA: Tensor, strides_A: Tensor, pre_nms: int) -> Tensor:
    """Anchors that enter, best first, [B,P]; stable sorts, because torch.topk does not say which of two equals it takes."""
    chosen = []
    for stride in STRIDES:
        level = torch.nonzero(strides_A == stride)[:, 0]
        order = best_BA[:, level].sort(dim=1, descending=True, stable=True).indices[:, :pre_nms]
        chosen.append(level[order])
    ids_BP = torch.cat(chosen, dim=1)
    return ids_BP.gather(1, best_BA.gather(1, ids_BP).sort(dim=1, descending=True, stable=True).indices)


def _overlap(boxes_BP4: Tensor, iou: float) -> Tensor:
    """[B,P,P] bool: intersection > iou * union."""
    low_BP2, high_BP2 = boxes_BP4[..., :2], boxes_BP4[..., 2:]
    sides = torch.minimum(high_BP2[:, :, None], high_BP2[:, None]) - torch.maximum(low_BP2[:, :, None], low_BP2[:, None])
    shared_BPP = sides.clamp(min=0).prod(-1)
    area_BP = (high_BP2 - low_BP2).prod(-1)
    return shared_BPP > iou * (area_BP[:, :, None] + area_BP[:, None] - shared_BPP)


@torch.library.custom_op("apex::decode_nms", mutates_args=())
def _decode_nms_op(
    scores: Tensor,
    ltrb: Tensor,
    centres: Tensor,
    strides: Tensor,
    max_detections: int,
    pre_nms: int,
    score: float,
    iou: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return decode_nms_formula(scores, ltrb, centres, strides, max_detections, pre_nms, score, iou)


@_decode_nms_op.register_fake
def _(
    scores: Tensor,
    ltrb: Tensor,
    centres: Tensor,
    strides: Tensor,
    max_detections: int,
    pre_nms: int,
    score: float,
    iou: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    flat = (scores.shape[0], max_detections)
    ids = scores.new_empty(flat, dtype=torch.int64)
    return ltrb.new_empty(*flat, 4), scores.new_empty(flat), ids, torch.empty_like(ids)
