"""Which cell answers for which object: task-aligned assignment (TOOD, Feng et al. 2021), once over all pyramid levels.

Shapes: B images, G padded objects per image, A anchors of all levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from apex_train.losses.boxes import pairwise_iou

SCORE_POWER = 0.5
IOU_POWER = 6.0
# An object smaller than a cell may contain no cell centre; it may be claimed from this many strides around its centre.
REACH = 0.75


@dataclass(frozen=True)
class Assignment:
    """``object_BA`` index of the object each anchor answers for (-1: background), ``quality_BA`` its soft target in [0,1]."""

    object_BA: Tensor
    quality_BA: Tensor

    @property
    def positive_BA(self) -> Tensor:
        """bool [B,A]: anchors that answer for an object."""
        return self.object_BA >= 0


@torch.no_grad()
def reachable(boxes_BG4: Tensor, centres_A2: Tensor, strides_A: Tensor) -> Tensor:
    """bool [B,G,A]: the anchor's centre lies in the object's box, grown to at least ``2 * REACH`` strides per side."""
    middle = (boxes_BG4[..., :2] + boxes_BG4[..., 2:]) / 2
    half = (boxes_BG4[..., 2:] - boxes_BG4[..., :2]) / 2
    offset = (centres_A2 - middle[:, :, None]).abs()
    limit = torch.maximum(half[:, :, None], REACH * strides_A[:, None])
    return (offset < limit).all(-1)


@torch.no_grad()
def assign(score_BAC: Tensor, boxes_BA4: Tensor, truth_BG4: Tensor, labels_BG: Tensor, reach_BGA: Tensor, top: int) -> Assignment:
    """Give every object its ``top`` best anchors by score^0.5 * IoU^6; an anchor wanted twice goes to the object it overlaps
    most.

    ``score_BAC`` are probabilities, ``labels_BG`` is -1 for padding. The soft target is the alignment, scaled so that the best
    anchor of an object gets that object's best IoU.
    """
    real_BG = labels_BG >= 0
    overlap = pairwise_iou(truth_BG4, boxes_BA4)
    classes = labels_BG.clamp(min=0)[:, :, None].expand(-1, -1, score_BAC.shape[1])
    score_BGA = torch.gather(score_BAC.transpose(1, 2), 1, classes)
    allowed = reach_BGA & real_BG[..., None]
    # The tiny floor keeps an order among anchors whose box does not overlap yet, so that no object starts without a teacher.
    alignment = (score_BGA.pow(SCORE_POWER) * overlap.pow(IOU_POWER) + 1e-9 * score_BGA + 1e-12) * allowed
    best = alignment.topk(min(top, alignment.shape[-1]), dim=-1)
    mine = torch.zeros_like(allowed).scatter_(2, best.indices, best.values > 0)
    overlap_mine = torch.where(mine, overlap, overlap.new_full((), -1.0))
    winner_BA = overlap_mine.argmax(1)
    mine &= F.one_hot(winner_BA, mine.shape[1]).transpose(1, 2).bool()
    alignment = alignment * mine
    scale = (overlap * mine).amax(-1, keepdim=True) / alignment.amax(-1, keepdim=True).clamp(min=1e-20)
    quality_BA = (alignment * scale).amax(1)
    object_BA = torch.where(mine.any(1), winner_BA, winner_BA.new_full((), -1))
    return Assignment(object_BA, quality_BA)
