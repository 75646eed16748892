"""Box decode in torch, DecodeNMS in torch (inference only), and the custom op that stands for it while exporting.

Suffixes: B batch, A anchors, C classes, M max_detections, P candidates that enter the suppression.
"""

from __future__ import annotations

import torch
from torch import Tensor


def decode_boxes(ltrb_BA4: Tensor, centres_A2: Tensor, strides_A: Tensor) -> Tensor:
    """Distances in strides to corners in pixels: x1 = cx - l * stride, ..., y2 = cy + b * stride; [B,A,4] xyxy.

    The one torch definition of the box decode (its meaning: ``reference.decode_boxes``). centres_A2 may also be [B,A,2] and
    strides_A [B,A], for candidates gathered per image.
    """
    steps = strides_A[..., None]
    low = centres_A2 - ltrb_BA4[..., :2] * steps
    high = centres_A2 + ltrb_BA4[..., 2:] * steps
    return torch.cat([low, high], dim=-1)
