"""Mask losses on matched instances: prototypes combined by an instance's coefficients, compared inside its own box."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from apex_train.losses.assignment import Assignment
from apex_train.model.config import MASK_STRIDE

MARGIN = 1.25  # the compared region is this much larger than the box, for what is predicted just outside it is shown too


def choose_instances(assignment: Assignment, has_mask_BG: Tensor, per_object: int) -> tuple[Tensor, Tensor, Tensor]:
    """The anchors whose masks are compared: the best ``per_object`` per object on average. Returns (image, anchor, object)
    [X]."""
    object_BA = assignment.object_BA
    drawn_BA = torch.gather(has_mask_BG, 1, object_BA.clamp(min=0)) & assignment.positive_BA
    limit = int(per_object * has_mask_BG.sum(1).max().item())
    if limit == 0:
        empty = object_BA.new_zeros(0)
        return empty, empty, empty
    ranked = torch.where(drawn_BA, assignment.quality_BA + 1, torch.zeros_like(assignment.quality_BA))
    values, anchors = ranked.topk(min(limit, ranked.shape[1]), dim=1)
    quota_B1 = per_object * has_mask_BG.sum(1, keepdim=True)
    place = torch.arange(values.shape[1], device=values.device)
    image, column = torch.nonzero((values > 0) & (place < quota_B1), as_tuple=True)
    anchor = anchors[image, column]
    return image, anchor, object_BA[image, anchor]


def mask_losses(
    coefficients_XP: Tensor, prototypes_BPhw: Tensor, image_X: Tensor, target_Xhw: Tensor, boxes_X4: Tensor
) -> tuple[Tensor, Tensor]:
    """(binary cross entropy, Dice) per instance [X]; ``target_Xhw`` is the covered share of each cell in [0,1], boxes in
    pixels. ``image_X`` is ascending, as ``choose_instances`` gives it."""
    batch, height, width = len(prototypes_BPhw), *prototypes_BPhw.shape[2:]
    counts = torch.bincount(image_X, minlength=batch).tolist()  # one wait for a GPU, not one per image
    pairs = zip(coefficients_XP.float().split(counts), prototypes_BPhw.float().flatten(2), strict=True)
    logits = torch.cat([coefficients @ prototypes for coefficients, prototypes in pairs]).unflatten(1, (height, width))
    inside = _region(boxes_X4 / MASK_STRIDE, *logits.shape[1:])
    area = inside.sum((1, 2)).clamp(min=1)
    bce = (F.binary_cross_entropy_with_logits(logits, target_Xhw, reduction="none") * inside).sum((1, 2)) / area
    probability = logits.sigmoid() * inside
    target = target_Xhw * inside
    common = (probability * target).sum((1, 2))
    dice = 1 - (2 * common + 1) / (probability.square().sum((1, 2)) + target.square().sum((1, 2)) + 1)
    return bce, dice


def _region(boxes_X4: Tensor, height: int, width: int) -> Tensor:
    """float [X,h,w]: cells whose centre lies in the box grown by MARGIN and one cell."""
    middle = (boxes_X4[:, :2] + boxes_X4[:, 2:]) / 2
    half = (boxes_X4[:, 2:] - boxes_X4[:, :2]) / 2 * MARGIN + 1
    x = torch.arange(width, device=boxes_X4.device) + 0.5
    y = torch.arange(height, device=boxes_X4.device) + 0.5
    in_x = (x - middle[:, :1]).abs() < half[:, :1]
    in_y = (y - middle[:, 1:]).abs() < half[:, 1:]
    return (in_y[:, :, None] & in_x[:, None, :]).float()
