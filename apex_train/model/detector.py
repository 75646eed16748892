"""The one network: trained, evaluated, exported and served from this class.

Shapes: B images, N tiles of a level, K chosen tiles, C channels, n = tile / 8 cells, A anchors of all strides, P prototypes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from apex_plugins.tile_pack.torch_op import tile_pack
from apex_plugins.tile_unpack_fusion.torch_op import tile_unpack_fusion
from apex_runtime.routing.quadtree import sequence_ranks
from apex_train.model.config import STRIDES, ModelConfig
from apex_train.model.deployed import as_deployed
from apex_train.model.foveal import FovealStream, FusionGate, TileContext
from apex_train.model.heads import LevelHead, Neck, PrototypeHead
from apex_train.model.peripheral import PeripheralStream
from apex_train.model.quadtree import Level, choose, divided, enlarged, in_context, is_empty, joined, levels_like, reduced
from apex_train.model.recompute import run_recomputed
from apex_train.model.router import Router, evidence_map, selection_key

# Of the ImageNet photographs, in 0..255 units. The letterbox grey (114) is then close to 0, which is what lies outside the image.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class HeadOutputs:
    """Raw predictions of one merged map: logits many/one [B,A,nc], ltrb [B,A,4] >= 0 in strides, coefficients [B,A,P],
    prototypes [B,P,H/4,W/4]; ``quality`` [B,A], logits of the masks' IoU, where the model has that head."""

    many: Tensor
    one: Tensor
    ltrb: Tensor
    coefficients: Tensor
    prototypes: Tensor
    quality: Tensor | None = None


@dataclass(frozen=True)
class Outputs:
    """Everything a forward pass yields. ``utilities`` and ``tile_ids`` are of level 0, ``finer`` holds those of the other levels.

    ``alpha`` [B,K,1,n,n] is the fusion gate before the router's straight-through factor, of all levels one after the other.
    """

    heads: HeadOutputs
    utilities: Tensor
    tile_ids: Tensor
    alpha: Tensor
    peripheral: HeadOutputs | None = None
    finer: tuple[Level, ...] = ()

    @property
    def levels(self) -> tuple[Level, ...]:
        """All levels, the coarsest first."""
        return (Level(self.utilities, self.tile_ids), *self.finer)


class ApexDetector(nn.Module):
    """Images uint8 [B,H,W,3] RGB, K tiles, bonus [B,N] -> Outputs. H and W are multiples of ``config.coarse_tile``."""

    pixel_mean: Tensor
    pixel_scale: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        c = config.features
        self.peripheral = PeripheralStream(config.peripheral_widths, c)
        self.foveal = FovealStream(config.foveal_widths, config.foveal_blocks, c, config.halo)
        self.context = TileContext(c, config.scan_heads, config.scan_state)
        self.gate = FusionGate(c)
        self.router, *finer = (Router(config.tile * scale // STRIDES[0]) for scale in config.scales)
        self.finer_routers = nn.ModuleList(finer)
        self.neck = Neck(c)
        self.heads = nn.ModuleList(LevelHead(c, len(config.classes), config.prototypes, config.mask_quality) for _ in STRIDES)
        self.masks = PrototypeHead(c, config.prototypes)
        self.recompute = False  # activations of the streams and heads anew in the backward pass: less memory, a third more time
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_scale", 1 / torch.tensor(PIXEL_STD).view(1, 3, 1, 1), persistent=False)

    def normalise(self, images_BHW3: Tensor) -> Tensor:
        """uint8 [B,H,W,3] -> float [B,3,H,W]. The cast comes first: TensorRT for RTX refuses to transpose uint8."""
        return (images_BHW3.float().permute(0, 3, 1, 2) - self.pixel_mean) * self.pixel_scale

    def evidence(self, p3: Tensor, p4: Tensor, p5: Tensor) -> Tensor:
        """What the heads find from afar, for the router: see ``evidence_map``. Nothing that the router learns reaches them."""
        with as_deployed(self.neck, self.heads):
            levels = self.neck(p3, p4, p5)
            return evidence_map(
                [cast(LevelHead, head).found(level) for head, level in zip(self.heads, levels, strict=True)]
            ).detach()

    def route(
        self, evidence_B3hw: Tensor, tiles: int | Sequence[int], bonus: Tensor | Sequence[Tensor]
    ) -> tuple[tuple[Level, ...], list[Tensor]]:
        """The choice of every level, and the ``sequence_ranks`` float32 [N] of each. Arguments as in ``forward``."""
        utilities = [router(evidence_B3hw) for router in (self.router, *self.finer_routers)]
        bonuses = divided(bonus, [item.shape[1] for item in utilities]) if isinstance(bonus, Tensor) else bonus
        keys = [selection_key(*pair) for pair in zip(utilities, bonuses, strict=True)]
        rows, cols = self.config.grid(*(side * STRIDES[0] for side in evidence_B3hw.shape[2:]))
        places = sequence_ranks(rows, cols, self.config.depth)
        ranks = [torch.from_numpy(item).to(evidence_B3hw.device, torch.float32) for item in places]
        ids = choose(keys, tiles if isinstance(tiles, Sequence) else [tiles], cols, ranks)
        return tuple(Level(*pair) for pair in zip(utilities, ids, strict=True)), ranks

    def see(self, image_B3HW: Tensor, ids: Sequence[Tensor]) -> Tensor:
        """What the foveal stream sees in each of the tiles ``ids`` [B,K] per level by itself, [B,K,C,n,n], as one batch: along K
        one level after the other."""
        tiles = joined([self._pack(image_B3HW, item, level) for level, item in enumerate(ids) if not is_empty(item)])
        b, k = tiles.shape[:2]
        return self._run(self.foveal, tiles.flatten(0, 1)).unflatten(0, (b, k))

    def weigh(
        self, seen_BKCnn: Tensor, base_BChw: Tensor, ids: Sequence[Tensor], ranks: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """The close look: (heavy tiles [B,K,C,sn,sn] per level, alpha [B,K,1,n,n]). Heavy is the base plus the detail that was
        seen; ``ranks`` are ``sequence_ranks``."""
        if len(ids) == 1:  # chosen in sequence
            detail = self.context(seen_BKCnn)
        else:
            detail = in_context(self.context, seen_BKCnn, joined([rank[item] for rank, item in zip(ranks, ids, strict=True)]))
        parts = zip(ids, divided(detail, [item.shape[1] for item in ids]), self.config.scales, strict=True)
        heavy = [chosen_cells(base_BChw, item, self._cells(scale)) + enlarged(seen, scale) for item, seen, scale in parts]
        return heavy, self.gate(detail)

    def _cells(self, scale: int) -> int:
        """Cells a side that a tile covers of the stride-8 map."""
        return self.config.tile * scale // STRIDES[0]

    def _pack(self, image_B3HW: Tensor, ids_BK: Tensor, level: int) -> Tensor:
        """Gathered at full resolution, then averaged: nothing but a gather touches the whole image (rule 1)."""
        scale = self.config.scales[level]
        tile, halo = self.config.tile * scale, self.config.halo * scale
        return reduced(tile_pack(image_B3HW, ids_BK, levels_like(ids_BK, level), tile, halo), scale)

    def fuse(self, base_BChw: Tensor, heavy: Sequence[Tensor], gate: Tensor, ids: Sequence[Tensor]) -> Tensor:
        """The map [B,C,h,w] with the heavy tiles blended in level by level: finer overrides coarser."""
        merged = base_BChw
        for level, share in enumerate(divided(gate, [item.shape[1] for item in ids])):
            if not is_empty(ids[level]):
                scale, levels = self.config.scales[level], levels_like(ids[level], level)
                tile = self.config.tile * scale
                merged = tile_unpack_fusion(merged, heavy[level], ids[level], levels, enlarged(share, scale), tile)
        return merged

    def look(
        self, image_B3HW: Tensor, base_BChw: Tensor, levels: Sequence[Level], ranks: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The map [B,C,h,w] after a close look at what ``route`` chose, and the fusion gate alpha [B,K,1,n,n]."""
        ids = [level.tile_ids for level in levels]
        heavy, alpha = self.weigh(self.see(image_B3HW, ids), base_BChw, ids, ranks)
        gate = alpha
        if self.training:
            worth = torch.sigmoid(joined([torch.gather(level.utilities, 1, level.tile_ids) for level in levels]))
            gate = alpha * (1 + worth - worth.detach())[:, :, None, None, None]
        return self.fuse(base_BChw, heavy, gate, ids), alpha

    def read(self, merged: Tensor, p4: Tensor, p5: Tensor) -> HeadOutputs:
        """Neck and heads on one stride-8 map."""
        levels = self.neck(merged, p4, p5)
        parts = [head(level) for head, level in zip(self.heads, levels, strict=True)]
        many, one, ltrb, coefficients, *quality = (torch.cat(item, dim=1) for item in zip(*parts, strict=True))
        return HeadOutputs(many, one, ltrb, coefficients, self.masks(levels[0]), quality[0].squeeze(-1) if quality else None)

    def forward(
        self,
        images_BHW3: Tensor,
        tiles: int | Sequence[int],
        tile_bonus: Tensor | Sequence[Tensor],
        with_peripheral: bool = False,
    ) -> Outputs:
        """Choose ``tiles`` tiles per image, look at them, predict.

        With several levels ``tiles`` has one number per level, at least 1 of level 0 and from each of the others at most four
        times that of the level above; ``tile_bonus`` is float32 [B,N] per level, or all of them side by side in one tensor.
        ``with_peripheral`` adds the predictions of the same heads with every tile gated off, which is what the close look is
        measured against in training and in the K = 0 evaluation.
        """
        image = self.normalise(images_BHW3)
        p3, p4, p5 = self._run(self.peripheral, image)
        levels, ranks = self.route(self.evidence(p3, p4, p5), tiles, tile_bonus)
        merged, alpha = self.look(image, p3, levels, ranks)
        peripheral = self._run(self.read, p3, p4, p5) if with_peripheral else None
        heads = self._run(self.read, merged, p4, p5)
        return Outputs(heads, levels[0].utilities, levels[0].tile_ids, alpha, peripheral, levels[1:])

    def _run(self, part: Callable[..., Any], *inputs: Tensor) -> Any:
        if self.recompute and self.training:
            return run_recomputed(part, self, *inputs)
        return part(*inputs)


def chosen_cells(map_BChw: Tensor, ids_BK: Tensor, cells: int) -> Tensor:
    """The feature cells of the chosen tiles: [B,C,h,w] and ids [B,K] -> [B,K,C,cells,cells]."""
    b, c, _, w = map_BChw.shape
    k = ids_BK.shape[1]
    if is_empty(ids_BK):
        return map_BChw.new_zeros(b, k, c, cells, cells)
    cols = w // cells
    steps = torch.arange(cells, device=ids_BK.device)
    within = (steps[:, None] * w + steps).flatten()
    first_BK = (ids_BK // cols) * (cells * w) + (ids_BK % cols) * cells
    index = (first_BK[:, :, None] + within).reshape(b, 1, -1).expand(b, c, -1)  # only what was chosen: the map is not rearranged
    return map_BChw.flatten(2).gather(2, index).view(b, c, k, cells, cells).transpose(1, 2)
