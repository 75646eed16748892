"""The losses contract: ``compute_training_losses(outputs, targets, config) -> (total, terms)``, every key always there."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from apex_plugins.decode_nms.torch_op import decode_boxes
from apex_train.config import LossConfig
from apex_train.data.loader import Batch
from apex_train.losses.assignment import Assignment, assign, reachable
from apex_train.losses.boxes import box_loss
from apex_train.losses.masks import choose_instances, mask_losses
from apex_train.losses.oracle import oracle_loss, tile_gains
from apex_train.model.config import MASK_STRIDE
from apex_train.model.detector import HeadOutputs, Outputs
from apex_train.model.heads import anchor_grid

KEYS = (
    "cls",
    "box",
    "mask_bce",
    "mask_dice",
    "mask_lovasz",
    "mask_boundary",
    "mask_multiscale",
    "mask_quality",
    "budget",
    "oracle",
    "total",
)


class Matcher:
    """One-to-many and one-to-one assignment of a batch, over all levels at once."""

    def __init__(self, heads: HeadOutputs, targets: Batch, config: LossConfig) -> None:
        height, width = targets.images.shape[1:3]
        self.centres_A2, self.strides_A = (item.to(heads.ltrb.device) for item in anchor_grid(height, width))
        self.boxes_BA4 = decode_boxes(heads.ltrb, self.centres_A2, self.strides_A)
        reach = reachable(targets.boxes, self.centres_A2, self.strides_A)
        truth = (targets.boxes, targets.labels, reach)
        detached = self.boxes_BA4.detach()
        self.many = assign(heads.many.detach().float().sigmoid(), detached, *truth, config.top_many)
        self.one = assign(heads.one.detach().float().sigmoid(), detached, *truth, 1)
        self.ignored_BA = ignored_anchors(targets.ignore.to(self.boxes_BA4.device), self.centres_A2)


def ignored_anchors(ignore_BHW: Tensor, centres_A2: Tensor) -> Tensor:
    """bool [B,A]: the anchor's centre lies in an ignore region, such as a crowd; ``ignore_BHW`` is at the stride of the masks."""
    columns, rows = (centres_A2 / MASK_STRIDE).long().unbind(1)
    return ignore_BHW[:, rows, columns] != 0


def compute_training_losses(
    outputs: Outputs, targets: Batch, config: LossConfig, tile: int, objects: int | None = None, share: float = 1.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """All terms, weighted and divided by the number of objects of the effective batch (``objects``; this batch's when not given).

    ``tile`` is the routing tile in pixels. ``share`` is this batch's share of the images of the effective batch; what is a mean
    over images is multiplied by it, so that the terms of all parts add up to those of the whole. Terms without a weight are
    zero. An image without objects still teaches background. The peripheral pass (every tile gated off) adds to the same terms
    with its own weight. Nothing is repaired: a non-finite term stays non-finite.
    """
    scale = 1.0 / max(1, targets.objects if objects is None else objects)
    matcher = Matcher(outputs.heads, targets, config)
    terms = {key: outputs.utilities.new_zeros(()) for key in KEYS}
    on_cls_BA = class_loss(outputs.heads, targets, matcher, config)
    on_box_BA = shape_loss(matcher.boxes_BA4, targets, matcher.many, config)
    terms["cls"] = on_cls_BA.sum() * scale
    terms["box"] = on_box_BA.sum() * scale * config.box
    bce, dice = _mask_terms(outputs.heads, targets, matcher.many, config)
    terms["mask_bce"], terms["mask_dice"] = bce * scale * config.mask_bce, dice * scale * config.mask_dice
    if outputs.peripheral is not None:
        boxes = decode_boxes(outputs.peripheral.ltrb, matcher.centres_A2, matcher.strides_A)
        off_cls_BA = class_loss(outputs.peripheral, targets, matcher, config)
        off_box_BA = shape_loss(boxes, targets, matcher.many, config)
        off_bce, off_dice = _mask_terms(outputs.peripheral, targets, matcher.many, config)
        terms["cls"] = terms["cls"] + config.peripheral * off_cls_BA.sum() * scale
        terms["box"] = terms["box"] + config.peripheral * off_box_BA.sum() * scale * config.box
        terms["mask_bce"] = terms["mask_bce"] + config.peripheral * off_bce * scale * config.mask_bce
        terms["mask_dice"] = terms["mask_dice"] + config.peripheral * off_dice * scale * config.mask_dice
        cols = targets.images.shape[2] // tile
        off, on = off_cls_BA + config.box * off_box_BA, on_cls_BA + config.box * on_box_BA
        gains = tile_gains(off, on, matcher.centres_A2, outputs.tile_ids, tile, cols, outputs.utilities.shape[1])
        terms["oracle"] = share * config.oracle * oracle_loss(outputs.utilities, outputs.tile_ids, gains)
    terms["total"] = torch.stack([value for key, value in terms.items() if key != "total"]).sum()
    return terms["total"], terms


def class_loss(heads: HeadOutputs, targets: Batch, matcher: Matcher, config: LossConfig) -> Tensor:
    """Weighted binary cross entropy per anchor [B,A] of both branches, with the soft alignment as the target.

    An anchor in an ignore region that answers for no object is no background either: what it finds there may be right.
    """
    total = heads.ltrb.new_zeros(heads.ltrb.shape[:2])
    for logits, assignment, weight in ((heads.many, matcher.many, config.cls), (heads.one, matcher.one, config.cls_one)):
        target_BAC = torch.zeros_like(logits, dtype=torch.float32)
        labels_BA = torch.gather(targets.labels, 1, assignment.object_BA.clamp(min=0)).clamp(min=0)
        quality = torch.where(assignment.positive_BA, assignment.quality_BA, torch.zeros_like(assignment.quality_BA))
        target_BAC.scatter_(2, labels_BA[..., None], quality[..., None])
        loss_BA = F.binary_cross_entropy_with_logits(logits.float(), target_BAC, reduction="none").sum(-1)
        total = total + weight * loss_BA.masked_fill(matcher.ignored_BA & ~assignment.positive_BA, 0.0)
    return total


def shape_loss(boxes_BA4: Tensor, targets: Batch, assignment: Assignment, config: LossConfig) -> Tensor:
    """Box loss per anchor [B,A], weighted by the anchor's alignment, zero on the background."""
    image, anchor = torch.nonzero(assignment.positive_BA, as_tuple=True)
    truth = targets.boxes[image, assignment.object_BA[image, anchor]]
    size = (targets.images.shape[1], targets.images.shape[2])
    loss_X = box_loss(boxes_BA4[image, anchor], truth, config.box_kind, size) * assignment.quality_BA[image, anchor]
    return boxes_BA4.new_zeros(boxes_BA4.shape[:2]).index_put((image, anchor), loss_X)


def _mask_terms(heads: HeadOutputs, targets: Batch, assignment: Assignment, config: LossConfig) -> tuple[Tensor, Tensor]:
    """Mask losses summed over objects, each the mean of its ``masks_per_object`` compared anchors; a zero that still reaches the
    heads when there is nothing to compare."""
    image, anchor, item = choose_instances(assignment, targets.has_mask, config.masks_per_object)
    if len(image) == 0:
        nothing = 0.0 * (heads.coefficients.float().sum() + heads.prototypes.float().sum())
        return nothing, nothing
    target = targets.masks[image, item].float() / 255
    coefficients = heads.coefficients[image, anchor]
    bce, dice = mask_losses(coefficients, heads.prototypes, image, target, targets.boxes[image, item])
    return bce.sum() / config.masks_per_object, dice.sum() / config.masks_per_object
