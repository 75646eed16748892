"""Overlap measures of box pairs and the losses made of them (1 - measure, unclamped, so that far boxes keep a gradient)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPSILON = 1e-7


def pairwise_iou(a_X4: Tensor, b_Y4: Tensor) -> Tensor:
    """Intersection over union of every pair: [...,X,4] and [...,Y,4] xyxy -> [...,X,Y]."""
    low = torch.maximum(a_X4[..., :, None, :2], b_Y4[..., None, :, :2])
    high = torch.minimum(a_X4[..., :, None, 2:], b_Y4[..., None, :, 2:])
    common = (high - low).clamp(min=0).prod(-1)
    union = _area(a_X4)[..., :, None] + _area(b_Y4)[..., None, :] - common
    return common / (union + EPSILON)


def box_loss(predicted_X4: Tensor, target_X4: Tensor, kind: str, image_size: tuple[int, int]) -> Tensor:
    """1 - measure per pair [X]; ``kind`` is iou | giou | diou | ciou | mpdiou, ``image_size`` (height, width) scales MPDIoU.

    GIoU: Rezatofighi et al. 2019; DIoU, CIoU: Zheng et al. 2020; MPDIoU: Ma and Xu 2023.
    """
    low = torch.maximum(predicted_X4[:, :2], target_X4[:, :2])
    high = torch.minimum(predicted_X4[:, 2:], target_X4[:, 2:])
    common = (high - low).clamp(min=0).prod(-1)
    union = _area(predicted_X4) + _area(target_X4) - common
    iou = common / (union + EPSILON)
    if kind == "iou":
        return 1 - iou
    if kind == "mpdiou":
        diagonal = float(image_size[0] ** 2 + image_size[1] ** 2)
        corners = (predicted_X4 - target_X4).square().sum(-1)
        return 1 - iou + corners / diagonal
    hull = torch.maximum(predicted_X4[:, 2:], target_X4[:, 2:]) - torch.minimum(predicted_X4[:, :2], target_X4[:, :2])
    if kind == "giou":
        hull_area = hull.prod(-1)
        return 1 - iou + (hull_area - union) / (hull_area + EPSILON)
    centre = (predicted_X4[:, :2] + predicted_X4[:, 2:] - target_X4[:, :2] - target_X4[:, 2:]) / 2
    distance = centre.square().sum(-1) / (hull.square().sum(-1) + EPSILON)
    if kind == "diou":
        return 1 - iou + distance
    if kind == "ciou":
        return 1 - iou + distance + _aspect_penalty(predicted_X4, target_X4, iou)
    raise ValueError(f"unknown box loss {kind!r}")


def _aspect_penalty(predicted_X4: Tensor, target_X4: Tensor, iou: Tensor) -> Tensor:
    angles = [torch.atan2(_side(box, 0), _side(box, 1) + EPSILON) for box in (target_X4, predicted_X4)]
    v = (4 / math.pi**2) * (angles[0] - angles[1]).square()
    with torch.no_grad():
        weight = v / (v - iou + 1 + EPSILON)
    return weight * v


def _side(box_X4: Tensor, axis: int) -> Tensor:
    return box_X4[..., axis + 2] - box_X4[..., axis]


def _area(box_X4: Tensor) -> Tensor:
    return _side(box_X4, 0).clamp(min=0) * _side(box_X4, 1).clamp(min=0)
