"""All terms of the contract that look at masks, of the same chosen instances; a term without a weight is not computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from apex_train.config import LossConfig
from apex_train.data.loader import Batch
from apex_train.losses.assignment import Assignment
from apex_train.losses.boundary import mask_boundary
from apex_train.losses.lovasz import mask_lovasz
from apex_train.losses.masks import MaskPairs, choose_instances, compare, mask_bce, mask_dice
from apex_train.losses.multiscale import mask_multiscale
from apex_train.losses.quality import mask_quality
from apex_train.model.detector import HeadOutputs

_OF_PAIRS: dict[str, Callable[[MaskPairs], Tensor]] = {
    "mask_bce": mask_bce,
    "mask_dice": mask_dice,
    "mask_lovasz": mask_lovasz,
    "mask_boundary": mask_boundary,
    "mask_multiscale": mask_multiscale,
}
MASK_KEYS = (*_OF_PAIRS, "mask_quality")


def mask_terms(heads: HeadOutputs, targets: Batch, assignment: Assignment, config: LossConfig) -> dict[str, Tensor]:
    """Every key of MASK_KEYS that has a weight, per image [B]: the weighted sum over its objects, each the mean of its
    ``masks_per_object`` compared anchors, times the weight of the object.

    With nothing to compare a term is a zero that still reaches the heads; with anything in those outputs that is not finite no
    term is finite, also where a mask is saturated and would hide it.
    """
    weights = _weighted(heads, config)
    if not weights:
        return {}
    nothing_B = _reach(heads)
    compared = mask_losses(heads, targets, assignment, config)
    if compared is None:
        return dict.fromkeys(weights, nothing_B)
    return {key: nothing_B.index_add(0, compared.image, loss_X) for key, loss_X in compared.losses.items()}


@dataclass(frozen=True, eq=False)
class ComparedMasks:
    """X compared masks: of which image and object each is, int64 [X], and by key what it costs [X], all weighted."""

    image: Tensor
    item: Tensor
    losses: dict[str, Tensor]


def mask_losses(heads: HeadOutputs, targets: Batch, assignment: Assignment, config: LossConfig) -> ComparedMasks | None:
    """What each compared mask costs, times the weight of its object, divided by ``masks_per_object``; None with nothing to
    compare."""
    weights = _weighted(heads, config)
    if not weights:
        return None
    image, anchor, item = choose_instances(assignment, targets.has_mask, config.masks_per_object)
    if len(image) == 0:
        return None
    target, boxes = targets.masks[image, item].float() / 255, targets.boxes[image, item]
    pairs = compare(heads.coefficients[image, anchor], heads.prototypes, image, target, boxes, config.mask_region)
    losses = {key: loss(pairs) for key, loss in _OF_PAIRS.items() if key in weights}
    if "mask_quality" in weights and heads.quality is not None:
        losses["mask_quality"] = mask_quality(heads.quality[image, anchor], pairs)
    scale = {key: weights[key] / config.masks_per_object for key in losses}
    counted_X = targets.weights[image, item]
    return ComparedMasks(image, item, {key: scale[key] * counted_X * loss_X for key, loss_X in losses.items()})


def _weighted(heads: HeadOutputs, config: LossConfig) -> dict[str, float]:
    """The keys that have a weight, and a head."""
    weights = {key: weight for key, weight in mask_weights(config).items() if weight > 0}
    if heads.quality is None:
        weights.pop("mask_quality", None)
    return weights


def mask_weights(config: LossConfig) -> dict[str, float]:
    """The weight of every key of MASK_KEYS."""
    return {
        "mask_bce": config.mask_bce,
        "mask_dice": config.mask_dice,
        "mask_lovasz": config.mask_lovasz,
        "mask_boundary": config.mask_boundary,
        "mask_multiscale": config.mask_multiscale,
        "mask_quality": config.mask_quality,
    }


def _reach(heads: HeadOutputs) -> Tensor:
    """Zeros [B] with a gradient to everything that masks are made of."""
    made_of = heads.coefficients, heads.prototypes, *(() if heads.quality is None else (heads.quality,))
    return 0.0 * torch.stack([item.float().flatten(1).sum(1) for item in made_of]).sum(0)
