"""What a mask is worth: the head ``quality`` learns the IoU of the mask that the other heads draw (Mask Scoring R-CNN, Huang et
al. 2019). The target has no gradient and the head reads detached features: it watches, and changes nothing else."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from apex_train.losses.masks import MaskPairs


def mask_quality(quality_X: Tensor, pairs: MaskPairs) -> Tensor:
    """Binary cross entropy [X] of the logits ``quality_X`` against ``drawn_iou``."""
    return F.binary_cross_entropy_with_logits(quality_X.float(), drawn_iou(pairs), reduction="none")


@torch.no_grad()
def drawn_iou(pairs: MaskPairs) -> Tensor:
    """IoU [X] of the binarised mask with the truth within the region; 0 when both are empty."""
    drawn, truth = (pairs.logits > 0) & (pairs.inside > 0), pairs.truth
    union = (drawn | truth).sum((1, 2))
    return (drawn & truth).sum((1, 2)).float() / union.clamp(min=1)
