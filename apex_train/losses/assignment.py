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
LEAST = 0.05  # soft target of an object's best anchor whose box does not overlap it yet: at 0 nothing would pull the box there


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
    """bool [B,G,A]: the anchor's centre lies in the object's box, grown to at least ``2 * REACH`` strides per side.

    Beyond the finest level an object must be as long as a cell: coarse cells do not answer for what they cannot see.
    """
    middle = (boxes_BG4[..., :2] + boxes_BG4[..., 2:]) / 2
    half = (boxes_BG4[..., 2:] - boxes_BG4[..., :2]) / 2
    offset = (centres_A2 - middle[:, :, None]).abs()
    limit = torch.maximum(half[:, :, None], REACH * strides_A[:, None])
    seen = (2 * half.amax(-1, keepdim=True) >= strides_A) | (strides_A == strides_A.min())
    return (offset < limit).all(-1) & seen


@torch.no_grad()
def assign(score_BAC: Tensor, boxes_BA4: Tensor, truth_BG4: Tensor, labels_BG: Tensor, reach_BGA: Tensor, top: int) -> Assignment:
    """Give every object its ``top`` best anchors by score^0.5 * IoU^6; an anchor wanted twice goes to the object it overlaps
    most, and of equals the first counts: the first anchor, the first object.

    With ``top`` above one, an object that lost all of its anchors is given another, if there is one in its reach that is not the
    only one of another object. ``score_BAC`` are probabilities, ``labels_BG`` is -1 for padding. The soft target is the
    alignment, scaled so that the best anchor of an object gets that object's best IoU, and at least LEAST.
    """
    overlap = pairwise_iou(truth_BG4, boxes_BA4)
    classes = labels_BG.clamp(min=0)[:, :, None].expand(-1, -1, score_BAC.shape[1])
    score_BGA = torch.gather(score_BAC.transpose(1, 2), 1, classes)
    allowed = reach_BGA & (labels_BG >= 0)[..., None]
    # The tiny floor keeps an order among anchors whose box does not overlap yet, so that no object starts without a teacher.
    alignment = (score_BGA.pow(SCORE_POWER) * overlap.pow(IOU_POWER) + 1e-9 * score_BGA + 1e-12) * allowed
    owner_BA = _owners(alignment, overlap, top)
    if top > 1:
        _find_homes(owner_BA, alignment)
    mine = F.one_hot(owner_BA + 1, alignment.shape[1] + 1)[..., 1:].transpose(1, 2).bool()
    alignment = alignment * mine
    scale = (overlap * mine).amax(-1, keepdim=True).clamp(min=LEAST) / alignment.amax(-1, keepdim=True).clamp(min=1e-20)
    return Assignment(owner_BA, (alignment * scale).amax(1))


def _owners(alignment_BGA: Tensor, overlap_BGA: Tensor, top: int) -> Tensor:
    """int64 [B,A]: the object that gets each anchor, -1 where none wants it."""
    count = alignment_BGA.shape[-1]
    # The bits of floats >= 0 are ordered as they are; below them the place, so that no two keys are equal.
    place = torch.arange(count, 0, -1, device=alignment_BGA.device)
    keys = (alignment_BGA.float().contiguous().view(torch.int32).long() << 32) + place
    best = keys.topk(min(top, count), dim=-1).indices
    wanted = torch.zeros_like(alignment_BGA, dtype=torch.bool).scatter_(2, best, True) & (alignment_BGA > 0)
    contest = torch.where(wanted, overlap_BGA, overlap_BGA.new_full((), -1.0))
    winner_BA = contest.argmax(1)  # the first of equals, as torch documents
    return torch.where(wanted.any(1), winner_BA, winner_BA.new_full((), -1))


def _find_homes(owner_BA: Tensor, alignment_BGA: Tensor) -> None:
    """Give objects without an anchor, one after the other, their best free one, else one of an object that has several.

    In place. Such objects are few (1 % of those of the nuclei set): a loop over them costs less than a pass over all.
    """
    images, count, _ = alignment_BGA.shape
    owned_BG = owner_BA.new_zeros(images, count + 1).scatter_add_(1, owner_BA + 1, torch.ones_like(owner_BA))
    homeless = torch.nonzero((owned_BG[:, 1:] == 0) & (alignment_BGA > 0).any(-1))
    for image, item in homeless.tolist():
        owner_A, owned_G, wish_A = owner_BA[image], owned_BG[image], alignment_BGA[image, item]
        free_A = owner_A < 0
        spare_A = (free_A | (owned_G[owner_A + 1] > 1)) & (wish_A > 0)
        rank_A = (wish_A + 4 * free_A) * spare_A  # any free one before all others: an alignment is below 2
        place = rank_A.argmax()
        taken = spare_A[place].long()
        owned_G[owner_A[place] + 1] -= taken
        owned_G[item + 1] += taken
        owner_A[place] += taken * (item - owner_A[place])
