"""The losses contract: ``compute_training_losses(outputs, targets, config) -> (total, terms)``, every key always there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from apex_plugins.decode_nms.torch_op import decode_boxes
from apex_train.config import LossConfig
from apex_train.data.loader import Batch
from apex_train.losses.assignment import Assignment, assign, reachable
from apex_train.losses.boxes import box_loss
from apex_train.losses.budget import BudgetPrice, excess_cost
from apex_train.losses.mask_terms import mask_terms
from apex_train.losses.oracle import OracleLabels, oracle_loss
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
        boxes_BA4 = decode_boxes(heads.ltrb.detach(), self.centres_A2, self.strides_A)
        reach = reachable(targets.boxes, self.centres_A2, self.strides_A)
        truth = (targets.boxes, targets.labels, reach)
        self.many = assign(heads.many.detach().float().sigmoid(), boxes_BA4, *truth, config.top_many)
        self.one = assign(heads.one.detach().float().sigmoid(), boxes_BA4, *truth, 1)
        self.ignored_BA = ignored_anchors(targets.ignore.to(boxes_BA4.device), self.centres_A2)


def ignored_anchors(ignore_BHW: Tensor, centres_A2: Tensor) -> Tensor:
    """bool [B,A]: the anchor's centre lies in an ignore region, such as a crowd; ``ignore_BHW`` is at the stride of the masks."""
    columns, rows = (centres_A2 / MASK_STRIDE).long().unbind(1)
    return ignore_BHW[:, rows, columns] != 0


def compute_training_losses(
    outputs: Outputs,
    targets: Batch,
    config: LossConfig,
    objects: int | None = None,
    share: float = 1.0,
    price: BudgetPrice | None = None,
    labels: Sequence[OracleLabels] = (),
    matcher: Matcher | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """All terms, weighted and divided by the number of objects of the effective batch (``objects``; this batch's when not given).

    ``share`` is this batch's share of the images of the effective batch; what is a mean
    over images is multiplied by it, so that the terms of all parts add up to those of the whole. Terms without a weight are
    zero. An image without objects still teaches background. The peripheral pass (every tile gated off) adds to the same terms
    with its own weight. ``price`` is what the budget term multiplies the router's excess cost with, ``labels`` what the router is
    to learn of some tiles of each level; without them these terms are zero.
    ``matcher`` is of the same outputs and targets, where it has been made already.
    An object of weight w counts w times in every term; the number that the terms are divided by stays that of the objects.
    Nothing is repaired: a non-finite term stays non-finite.
    """
    scale = 1.0 / max(1, targets.objects if objects is None else objects)
    with torch.autocast(outputs.utilities.device.type, enabled=False):  # float32 inside, whatever the caller is at
        matcher = matcher or Matcher(outputs.heads, targets, config)
        terms = {key: outputs.utilities.new_zeros((), dtype=torch.float32) for key in KEYS}
        on = detection_terms(outputs.heads, targets, matcher, config)
        on.add_to(terms, scale)
        if outputs.peripheral is not None:
            off = detection_terms(outputs.peripheral, targets, matcher, config)
            off.add_to(terms, config.peripheral * scale)
        for level, of_level in zip(outputs.levels, labels, strict=False):
            utilities_RM = torch.gather(level.utilities.float()[of_level.rows], 1, of_level.ids)
            weight = of_level.share * config.oracle / len(labels)
            terms["oracle"] = terms["oracle"] + weight * oracle_loss(utilities_RM, of_level.gains)
        if price is not None:
            excess = excess_cost(outputs.utilities.float(), price.cost, price.share)
            terms["budget"] = share * config.budget * price.mu * excess
        terms["total"] = torch.stack([value for key, value in terms.items() if key != "total"]).sum()
    return terms["total"], terms


@dataclass(frozen=True, eq=False)
class DetectionTerms:
    """What one merged map costs: class and box loss per anchor [B,A], mask terms per image [B]; all weighted."""

    cls_BA: Tensor
    box_BA: Tensor
    masks: dict[str, Tensor]

    @property
    def loss_B(self) -> Tensor:
        """All of it per image: what is compared with and without a close look."""
        return torch.stack([self.cls_BA.sum(1), self.box_BA.sum(1), *self.masks.values()]).sum(0)

    def add_to(self, terms: dict[str, Tensor], factor: float) -> None:
        """Add the sums, times ``factor``, to the terms of the contract."""
        for key, value in ({"cls": self.cls_BA, "box": self.box_BA} | self.masks).items():
            terms[key] = terms[key] + factor * value.sum()


def detection_terms(heads: HeadOutputs, targets: Batch, matcher: Matcher, config: LossConfig) -> DetectionTerms:
    """The terms of the heads' outputs on one merged map, with an assignment that may come from another."""
    return DetectionTerms(
        class_loss(heads, targets, matcher, config),
        shape_losses(heads, targets, matcher, config),
        mask_terms(heads, targets, matcher.many, config),
    )


def class_loss(heads: HeadOutputs, targets: Batch, matcher: Matcher, config: LossConfig) -> Tensor:
    """Weighted binary cross entropy per anchor [B,A] of both branches together."""
    total = heads.ltrb.new_zeros(heads.ltrb.shape[:2])
    for loss_BA, _ in branch_losses(heads, targets, matcher, config):
        total = total + loss_BA
    return total


def branch_losses(
    heads: HeadOutputs, targets: Batch, matcher: Matcher, config: LossConfig
) -> Iterator[tuple[Tensor, Assignment]]:
    """Weighted binary cross entropy per anchor [B,A] of each branch, with the soft alignment as the target, and its assignment.

    An anchor in an ignore region that answers for no object is no background either: what it finds there may be right.
    """
    for logits, assignment, weight in ((heads.many, matcher.many, config.cls), (heads.one, matcher.one, config.cls_one)):
        logits = logits.float()
        target_BAC = torch.zeros_like(logits)
        labels_BA = torch.gather(targets.labels, 1, assignment.object_BA.clamp(min=0)).clamp(min=0)
        quality = torch.where(assignment.positive_BA, assignment.quality_BA, torch.zeros_like(assignment.quality_BA))
        target_BAC.scatter_(2, labels_BA[..., None], quality[..., None].to(logits.dtype))
        loss_BA = F.binary_cross_entropy_with_logits(logits, target_BAC, reduction="none").sum(-1)
        loss_BA = loss_BA * anchor_weights(targets, assignment)
        yield weight * loss_BA.masked_fill(matcher.ignored_BA & ~assignment.positive_BA, 0.0), assignment


def anchor_weights(targets: Batch, assignment: Assignment) -> Tensor:
    """float32 [B,A]: how much the object counts that an anchor answers for; 1 on the background, which is nobody's label."""
    weights_BA = torch.gather(targets.weights, 1, assignment.object_BA.clamp(min=0))
    return torch.where(assignment.positive_BA, weights_BA, torch.ones_like(weights_BA))


def shape_losses(heads: HeadOutputs, targets: Batch, matcher: Matcher, config: LossConfig) -> Tensor:
    """``shape_loss`` of what the heads say [B,A], times the weight of the term."""
    boxes_BA4 = decode_boxes(heads.ltrb, matcher.centres_A2, matcher.strides_A)
    return config.box * shape_loss(boxes_BA4, targets, matcher.many, config)


def shape_loss(boxes_BA4: Tensor, targets: Batch, assignment: Assignment, config: LossConfig) -> Tensor:
    """Box loss per anchor [B,A], weighted by the anchor's alignment, zero on the background."""
    image, anchor = torch.nonzero(assignment.positive_BA, as_tuple=True)
    truth = targets.boxes[image, assignment.object_BA[image, anchor]]
    size = (targets.images.shape[1], targets.images.shape[2])
    weight_X = assignment.quality_BA[image, anchor] * targets.weights[image, assignment.object_BA[image, anchor]]
    loss_X = box_loss(boxes_BA4[image, anchor], truth, config.box_kind, size) * weight_X
    return boxes_BA4.new_zeros(boxes_BA4.shape[:2]).index_put((image, anchor), loss_X)
