"""The training loss of one image in many states of its tiles at once, per state what ``compute_training_losses`` gives.

What is the same for all states is found once per image: which anchors an object can reach at all (the assignment is left to them,
for all others are background whatever they say), and the window of the prototypes' grid that the mask terms of an object look at
(in the training step they compare whole maps). ``mask_quality``, which teaches only its own layer, is left out.

Legend: X states, A anchors of all levels, R reachable ones, G objects, P prototypes, Y compared instances, s cells of a window.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from apex_plugins.decode_nms.torch_op import decode_boxes
from apex_train.config import LossConfig
from apex_train.data.loader import Batch
from apex_train.losses.assignment import Assignment, assign, reachable
from apex_train.losses.boundary import LIMIT
from apex_train.losses.compute import class_loss, ignored_anchors, shape_loss
from apex_train.losses.mask_terms import OF_PAIRS, mask_weights
from apex_train.losses.masks import MaskPairs, choose_instances, compare
from apex_train.losses.multiscale import SCALES
from apex_train.model.detector import HeadOutputs
from apex_train.model.heads import anchor_grid

SMALLEST = 16  # cells of a window's side; larger windows double until they hold what the terms look at
GATHERED = 1 << 25  # prototype values copied at a time, 128 MB


@dataclass(frozen=True, eq=False)
class Matched:
    """The assignments of all states, as the terms of the loss ask for them."""

    many: Assignment
    one: Assignment
    ignored_BA: Tensor


class ImageLoss:
    """Call it with the heads' outputs of X states of the image in ``batch`` (of one): the loss [X], per object of the image."""

    def __init__(self, batch: Batch, config: LossConfig) -> None:
        self.batch, self.config = batch, config
        self.centres_A2, self.strides_A = anchor_grid(*batch.images.shape[1:3])
        reach_GA = reachable(batch.boxes, self.centres_A2, self.strides_A)[0] & (batch.labels[0] >= 0)[:, None]
        self.near_R = reach_GA.any(0).nonzero()[:, 0]
        self.reach_1GR = reach_GA[None, :, self.near_R]
        self.ignored_1A = ignored_anchors(batch.ignore, self.centres_A2)
        self.weights = {key: weight for key, weight in mask_weights(config).items() if weight > 0 and key in OF_PAIRS}
        self.windows = Windows(batch)

    def __call__(self, heads: HeadOutputs) -> Tensor:
        count = len(heads.one)
        targets = _repeated(self.batch, count)
        boxes_XA4 = decode_boxes(heads.ltrb, self.centres_A2, self.strides_A)
        many = self._assign(heads.many, boxes_XA4, self.config.top_many)
        matched = Matched(many, self._assign(heads.one, boxes_XA4, 1), self.ignored_1A.expand(count, -1))
        total = class_loss(heads, targets, matched, self.config).sum(1)  # type: ignore[arg-type]
        total = total + self.config.box * shape_loss(boxes_XA4, targets, many, self.config).sum(1)
        return (total + self._mask_loss(heads, many, targets)) / max(1, self.batch.objects)

    def _assign(self, logits_XAC: Tensor, boxes_XA4: Tensor, top: int) -> Assignment:
        shape = logits_XAC.shape[:2]
        found = Assignment(self.near_R.new_full(shape, -1), logits_XAC.new_zeros(shape))
        if len(self.near_R):
            truth = (self.batch.boxes, self.batch.labels, self.reach_1GR)
            wide = (item.expand(shape[0], *item.shape[1:]) for item in truth)
            local = assign(logits_XAC[:, self.near_R].float().sigmoid(), boxes_XA4[:, self.near_R], *wide, top)
            found.object_BA[:, self.near_R], found.quality_BA[:, self.near_R] = local.object_BA, local.quality_BA
        return found

    def _mask_loss(self, heads: HeadOutputs, many: Assignment, targets: Batch) -> Tensor:
        """The weighted mask terms [X]."""
        total = heads.ltrb.new_zeros(len(heads.one))
        image_Y, anchor_Y, item_Y = choose_instances(many, targets.has_mask, self.config.masks_per_object)
        coefficients_YP = heads.coefficients[image_Y, anchor_Y]
        prototypes_XhwP = heads.prototypes.permute(0, 2, 3, 1).contiguous()
        for part_Y in self.windows.parts(item_Y, coefficients_YP.shape[1]):
            pairs = self.windows.compare(coefficients_YP[part_Y], prototypes_XhwP, image_Y[part_Y], item_Y[part_Y])
            for key, weight in self.weights.items():
                total.index_add_(0, image_Y[part_Y], OF_PAIRS[key](pairs) * weight / self.config.masks_per_object)
        return total


class Windows:
    """Per object the part of the prototypes' grid that its mask terms look at, its sides powers of two.

    It holds the compared region with a margin of what the boundary term looks beyond it, and lies on the coarsest grid of the
    multi-scale term; of a map that ends before, it is moved inwards.
    """

    def __init__(self, batch: Batch) -> None:
        nothing = batch.boxes.new_zeros(batch.masks.shape[1], 1)
        whole = batch.masks.shape[2:]
        image = torch.zeros(len(nothing), dtype=torch.int64)
        pairs = compare(nothing, nothing.new_zeros(1, 1, *whole), image, batch.masks[0].float() / 255, batch.boxes[0])
        self.target_Ghw, self.inside_Ghw = pairs.target, pairs.inside
        (self.top_G, tall_G), (self.left_G, wide_G) = (_extent(pairs.inside.amax(axis), 1 << SCALES) for axis in (2, 1))
        self.side_G = torch.maximum(tall_G, wide_G)

    def parts(self, item_Y: Tensor, channels: int) -> list[Tensor]:
        """Places in ``item_Y`` whose windows are of one size, not too many at a time."""
        side_Y = self.side_G[item_Y]
        found: list[Tensor] = []
        for side in side_Y.unique().tolist():
            found += (side_Y == side).nonzero()[:, 0].split(max(1, GATHERED // (channels * side * side)))
        return found

    def compare(self, coefficients_YP: Tensor, prototypes_XhwP: Tensor, image_Y: Tensor, item_Y: Tensor) -> MaskPairs:
        """Drawn and true masks in windows [Y,s,s]; all windows of one size."""
        side = int(self.side_G[item_Y[0]])
        rows_Ys1, cols_Y1s = (
            _span(start_G[item_Y], side, cells)
            for start_G, cells in zip((self.top_G, self.left_G), prototypes_XhwP.shape[1:3], strict=True)
        )
        rows_Ys1, cols_Y1s = rows_Ys1[:, :, None], cols_Y1s[:, None, :]
        seen_YssP = prototypes_XhwP[image_Y[:, None, None], rows_Ys1, cols_Y1s]
        logits = (seen_YssP.flatten(1, 2) @ coefficients_YP[:, :, None]).view(seen_YssP.shape[:3])
        target, inside = (item[item_Y[:, None, None], rows_Ys1, cols_Y1s] for item in (self.target_Ghw, self.inside_Ghw))
        return MaskPairs(logits, target, inside)


def _extent(inside_Gn: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """(start, side) int64 [G] along one axis of what is 1 in ``inside_Gn``, with its margin; start on a multiple of ``grid``."""
    cells = inside_Gn.shape[1]
    first_G = inside_Gn.argmax(1)
    last_G = cells - 1 - inside_Gn.flip(1).argmax(1)
    start_G = (first_G - LIMIT).clamp(min=0) // grid * grid
    side_G = torch.full_like(start_G, SMALLEST)
    while (short := last_G + LIMIT + 1 - start_G > side_G).any():
        side_G = torch.where(short, 2 * side_G, side_G)
    return start_G, side_G


def _span(start_Y: Tensor, side: int, cells: int) -> Tensor:
    """The places [Y,s] of windows of ``side`` cells that begin at ``start_Y``, or sooner where the map ends."""
    length = min(side, cells)
    return start_Y.clamp(max=cells - length)[:, None] + torch.arange(length)


def _repeated(batch: Batch, count: int) -> Batch:
    """The one image ``count`` times, without copies."""
    tensors = {field.name: getattr(batch, field.name) for field in fields(batch) if field.name != "image_ids"}
    wide = {name: value.expand(count, *value.shape[1:]) for name, value in tensors.items()}
    return Batch(**wide, image_ids=batch.image_ids * count)
