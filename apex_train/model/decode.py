"""The end of the graph: raw predictions become at most M detections, by a plain TopK or by NMS.

Suffixes: B images, A anchors of all levels, M detections, P prototypes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from apex_plugins.decode_nms import settings
from apex_plugins.decode_nms.torch_op import decode_boxes, decode_nms
from apex_runtime.model_info import Decode
from apex_train.model.detector import HeadOutputs
from apex_train.model.heads import anchor_grid


def decode_detections(heads: HeadOutputs, height: int, width: int, limit: int, decode: Decode) -> dict[str, Tensor]:
    """``top_detections`` or ``nms_detections``, as a model's passport says."""
    return (nms_detections if decode == "nms" else top_detections)(heads, height, width, limit)


def top_detections(heads: HeadOutputs, height: int, width: int, limit: int) -> dict[str, Tensor]:
    """The ``limit`` best one-to-one candidates of every image, best first, no NMS.

    Returns boxes [B,M,4] xyxy in input pixels, scores [B,M], labels, candidate_ids, mask_coefficients [B,M,P], mask_prototypes.
    """
    centres_A2, strides_A = (item.to(heads.one.device) for item in anchor_grid(height, width))
    best, labels_BA = heads.one.float().max(dim=-1)
    best = torch.sigmoid(best)  # before the TopK: some sigmoid kernels are not monotone to the last bit, and scores must descend
    scores_BM, candidates_BM = torch.topk(best, min(limit, best.shape[1]), dim=1)
    ltrb_BM4 = torch.gather(heads.ltrb, 1, candidates_BM[..., None].expand(-1, -1, 4))
    return {
        "boxes": decode_boxes(ltrb_BM4, centres_A2[candidates_BM], strides_A[candidates_BM]),
        "scores": scores_BM,
        "labels": torch.gather(labels_BA, 1, candidates_BM),
        "mask_coefficients": _coefficients(heads, candidates_BM),
        "mask_prototypes": heads.prototypes.float(),
        "candidate_ids": candidates_BM,
    }


def nms_detections(heads: HeadOutputs, height: int, width: int, limit: int) -> dict[str, Tensor]:
    """The one-to-many candidates that survive NMS within their class, best first; the same keys and shapes as ``top_detections``.

    Images with fewer than M survivors are padded: score, box and coefficients 0, label and candidate id -1.
    """
    centres_A2, strides_A = (item.to(heads.many.device) for item in anchor_grid(height, width))
    boxes_BM4, scores_BM, labels_BM, candidates_BM = decode_nms(
        torch.sigmoid(heads.many.float()),
        heads.ltrb,
        centres_A2,
        strides_A,
        min(limit, strides_A.shape[0]),
        settings.PRE_NMS,
        settings.MIN_SCORE,
        settings.IOU,
    )
    real_BM1 = (candidates_BM >= 0)[..., None]
    return {
        "boxes": boxes_BM4,
        "scores": scores_BM,
        "labels": labels_BM,
        "mask_coefficients": _coefficients(heads, candidates_BM.clamp(min=0)) * real_BM1,
        "mask_prototypes": heads.prototypes.float(),
        "candidate_ids": candidates_BM,
    }


def _coefficients(heads: HeadOutputs, candidates_BM: Tensor) -> Tensor:
    index = candidates_BM[..., None].expand(-1, -1, heads.coefficients.shape[2])
    return torch.gather(heads.coefficients, 1, index).float()
