"""Neck and heads on the merged map: classes, boxes, mask coefficients and mask prototypes.

Dual assignment (YOLOv10, Wang et al. 2024): the one-to-many scores teach, the one-to-one scores are deployed and need no NMS.
Boxes and
coefficients are shared by both, since both assignments ask the same cell for the same object.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from apex_train.model.blocks import ConvNorm, DepthwiseBlock
from apex_train.model.config import STRIDES

# Logit of an initial score of 0.01, so that the many background cells do not drown the first steps (RetinaNet, Lin et al. 2017).
BACKGROUND = -math.log((1 - 0.01) / 0.01)


class Neck(nn.Module):
    """Merged stride-8 map and peripheral strides 16, 32 -> refined pyramid of C channels; what was seen closely goes up."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.refine = DepthwiseBlock(channels)
        self.down4 = ConvNorm(channels, channels, stride=2)
        self.down5 = ConvNorm(channels, channels, stride=2)

    def forward(self, merged: Tensor, p4: Tensor, p5: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n3 = merged + self.refine(merged)
        n4 = self.down4(n3) + p4
        n5 = self.down5(n4) + p5
        return n3, n4, n5


class LevelHead(nn.Module):
    """Predictions of one pyramid level [B,C,h,w] -> per-cell (many [B,a,nc], one [B,a,nc], ltrb [B,a,4], coefficients
    [B,a,P]) and, with ``mask_quality``, the logit of the mask's IoU [B,a,1], which teaches nothing but its own layer."""

    def __init__(self, channels: int, classes: int, prototypes: int, mask_quality: bool = False) -> None:
        super().__init__()
        self.class_tower = DepthwiseBlock(channels)
        self.one_tower = DepthwiseBlock(channels)
        self.shape_tower = DepthwiseBlock(channels)
        self.many = nn.Conv2d(channels, classes, 1)
        self.one = nn.Conv2d(channels, classes, 1)
        self.ltrb = nn.Conv2d(channels, 4, 1)
        self.coefficients = nn.Conv2d(channels, prototypes, 1)
        for layer, start in ((self.many, BACKGROUND), (self.one, BACKGROUND), (self.ltrb, 1.5)):
            assert layer.bias is not None
            nn.init.constant_(layer.bias, start)
        self.quality = nn.Conv2d(channels, 1, 1) if mask_quality else None

    def found(self, x: Tensor) -> Tensor:
        """The one-to-many logits alone, as a map [B,nc,h,w]."""
        return self.many(self.class_tower(x))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        seen = self.class_tower(x)
        shape = self.shape_tower(x)
        maps = [self.many(seen), self.one(self.one_tower(seen)), self.ltrb(shape), self.coefficients(shape)]
        if self.quality is not None:
            maps.append(self.quality(shape.detach()))
        many, one, ltrb, *rest = (item.flatten(2).transpose(1, 2) for item in maps)
        return many, one, F.softplus(ltrb.float()), *rest


class PrototypeHead(nn.Module):
    """Refined stride-8 map [B,C,h,w] -> mask prototypes [B,P,2h,2w] at stride 4.

    Sub-pixel upsampling (Shi et al. 2016): the detail of the foveal stream sits in the channels, so nothing but a shuffle runs at
    stride 4 (DESIGN rule 1).
    """

    def __init__(self, channels: int, prototypes: int) -> None:
        super().__init__()
        self.mix = DepthwiseBlock(channels)
        self.expand = nn.Conv2d(channels, 4 * prototypes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.expand(self.mix(x)), 2)


def anchor_grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Cell centres [A,2] (x, y in pixels) and strides [A] of all levels, finest first, row by row."""
    centres, strides = [], []
    for stride in STRIDES:
        rows, cols = height // stride, width // stride
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
        centres.append((torch.stack([x, y], dim=-1).reshape(-1, 2) + 0.5) * stride)
        strides.append(torch.full((rows * cols,), float(stride)))
    return torch.cat(centres), torch.cat(strides)
