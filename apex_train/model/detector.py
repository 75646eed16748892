"""The one network: trained, evaluated, exported and served from this class.

Shapes: B images, N tiles of the grid, K chosen tiles, C channels, n = tile / 8 cells, A anchors of all levels, P prototypes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from apex_plugins.tile_pack.torch_op import tile_pack
from apex_plugins.tile_unpack_fusion.torch_op import tile_unpack_fusion
from apex_runtime.routing.hilbert import hilbert_rank
from apex_train.model.config import STRIDES, ModelConfig
from apex_train.model.foveal import FovealStream, FusionGate, TileContext
from apex_train.model.heads import LevelHead, Neck, PrototypeHead
from apex_train.model.peripheral import PeripheralStream
from apex_train.model.recompute import run_recomputed
from apex_train.model.router import Router, select_tiles, selection_key

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
    """Everything a forward pass yields. ``alpha`` [B,K,1,n,n] is the fusion gate before the router's straight-through factor."""

    heads: HeadOutputs
    utilities: Tensor
    tile_ids: Tensor
    alpha: Tensor
    peripheral: HeadOutputs | None = None


class ApexDetector(nn.Module):
    """Images uint8 [B,H,W,3] RGB, K tiles, bonus [B,N] -> Outputs. H and W are multiples of ``config.tile``."""

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
        self.router = Router(c, config.tile // STRIDES[0])
        self.neck = Neck(c)
        self.heads = nn.ModuleList(LevelHead(c, len(config.classes), config.prototypes, config.mask_quality) for _ in STRIDES)
        self.masks = PrototypeHead(c, config.prototypes)
        self.recompute = False  # activations of the streams and heads anew in the backward pass: less memory, a third more time
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_scale", 1 / torch.tensor(PIXEL_STD).view(1, 3, 1, 1), persistent=False)

    def normalise(self, images_BHW3: Tensor) -> Tensor:
        """uint8 [B,H,W,3] -> float [B,3,H,W]. The cast comes first: TensorRT for RTX refuses to transpose uint8."""
        return (images_BHW3.float().permute(0, 3, 1, 2) - self.pixel_mean) * self.pixel_scale

    def see(self, image_B3HW: Tensor, ids_BK: Tensor) -> Tensor:
        """What the foveal stream sees in each tile by itself, [B,K,C,n,n]."""
        tiles = tile_pack(image_B3HW, ids_BK, torch.zeros_like(ids_BK), self.config.tile, self.config.halo)
        return self._run(self.foveal, tiles.flatten(0, 1)).unflatten(0, ids_BK.shape)

    def weigh(self, seen_BKCnn: Tensor, base_BChw: Tensor, ids_BK: Tensor) -> tuple[Tensor, Tensor]:
        """The close look: (heavy tiles [B,K,C,n,n], alpha [B,K,1,n,n]). Heavy is the base plus the detail that was seen."""
        detail = self.context(seen_BKCnn)
        return chosen_cells(base_BChw, ids_BK, self.config.tile // STRIDES[0]) + detail, self.gate(detail)

    def read(self, merged: Tensor, p4: Tensor, p5: Tensor) -> HeadOutputs:
        """Neck and heads on one stride-8 map."""
        levels = self.neck(merged, p4, p5)
        parts = [head(level) for head, level in zip(self.heads, levels, strict=True)]
        many, one, ltrb, coefficients, *quality = (torch.cat(item, dim=1) for item in zip(*parts, strict=True))
        return HeadOutputs(many, one, ltrb, coefficients, self.masks(levels[0]), quality[0].squeeze(-1) if quality else None)

    def forward(self, images_BHW3: Tensor, tiles: int, tile_bonus_BN: Tensor, with_peripheral: bool = False) -> Outputs:
        """Choose ``tiles`` tiles per image, look at them, predict.

        ``with_peripheral`` adds the predictions of the same heads with every tile gated off, which is what the close look is
        measured against in training and in the K = 0 evaluation.
        """
        image = self.normalise(images_BHW3)
        p3, p4, p5 = self._run(self.peripheral, image)
        utilities = self.router(p3)
        ids = select_tiles(selection_key(utilities, tile_bonus_BN), tiles, self.order(images_BHW3))
        heavy, alpha = self.weigh(self.see(image, ids), p3, ids)
        gate = alpha
        if self.training:
            worth = torch.sigmoid(torch.gather(utilities, 1, ids))
            gate = alpha * (1 + worth - worth.detach())[:, :, None, None, None]
        merged = tile_unpack_fusion(p3, heavy, ids, torch.zeros_like(ids), gate, self.config.tile)
        peripheral = self._run(self.read, p3, p4, p5) if with_peripheral else None
        return Outputs(self._run(self.read, merged, p4, p5), utilities, ids, alpha, peripheral)

    def _run(self, part: Callable[..., Any], *inputs: Tensor) -> Any:
        if self.recompute and self.training:
            return run_recomputed(part, self, *inputs)
        return part(*inputs)

    def order(self, images_BHW3: Tensor) -> Tensor:
        """Each tile's place on the Hilbert curve, float32 [N]."""
        rows, cols = self.config.grid(images_BHW3.shape[1], images_BHW3.shape[2])
        return torch.from_numpy(hilbert_rank(rows, cols)).to(images_BHW3.device, torch.float32)


def chosen_cells(map_BChw: Tensor, ids_BK: Tensor, cells: int) -> Tensor:
    """The feature cells of the chosen tiles: [B,C,h,w] and ids [B,K] -> [B,K,C,cells,cells]."""
    b, c, _, w = map_BChw.shape
    k = ids_BK.shape[1]
    cols = w // cells
    steps = torch.arange(cells, device=ids_BK.device)
    within = (steps[:, None] * w + steps).flatten()
    first_BK = (ids_BK // cols) * (cells * w) + (ids_BK % cols) * cells
    index = (first_BK[:, :, None] + within).reshape(b, 1, -1).expand(b, c, -1)  # only what was chosen: the map is not rearranged
    return map_BChw.flatten(2).gather(2, index).view(b, c, k, cells, cells).transpose(1, 2)
