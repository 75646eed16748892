"""Pictures of which some tiles have been seen, and what the heads say when only some of these are looked at.

The streams run once, however many choices of tiles are compared: only what a choice changes is computed for each of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from apex_plugins.tile_unpack_fusion.torch_op import tile_unpack_fusion
from apex_train.model.detector import ApexDetector, HeadOutputs
from apex_train.model.router import select_tiles, selection_key


class Glance:
    """Images uint8 [B,H,W,3] through the peripheral stream and the router of ``model``, in the mode that the model is in."""

    def __init__(self, model: ApexDetector, images_BHW3: Tensor) -> None:
        self._model = model
        self._image = model.normalise(images_BHW3)
        self._base, self._p4, self._p5 = model.peripheral(self._image)
        self.utilities_BN = model.router(self._base)
        self.order_N = model.order(images_BHW3)

    def choose(self, tiles: int) -> Tensor:
        """Ids [B,K] of the router's own choice, in Hilbert order."""
        return select_tiles(selection_key(self.utilities_BN, torch.zeros_like(self.utilities_BN)), tiles, self.order_N)

    def see(self, ids_BU: Tensor) -> None:
        """Run the foveal stream on these tiles; ``read`` may then be asked for any part of them."""
        self._seen_BUCnn = self._model.see(self._image, ids_BU)
        self._place_BN = torch.zeros_like(self.utilities_BN, dtype=torch.int64)
        self._place_BN.scatter_(1, ids_BU, torch.arange(ids_BU.shape[1], device=ids_BU.device).expand_as(ids_BU))

    def read(self, ids_BK: Tensor) -> HeadOutputs:
        """What the heads say when the tiles ``ids_BK``, in any order, are looked at and no others; K may be 0."""
        if ids_BK.shape[1] == 0:
            return self._model.read(self._base, self._p4, self._p5)
        ids_BK = torch.gather(ids_BK, 1, self.order_N[ids_BK].argsort(1))
        image_B1 = torch.arange(len(ids_BK), device=ids_BK.device)[:, None]
        seen_BKCnn = self._seen_BUCnn[image_B1, torch.gather(self._place_BN, 1, ids_BK)]
        heavy, alpha = self._model.weigh(seen_BKCnn, self._base, ids_BK)
        merged = tile_unpack_fusion(self._base, heavy, ids_BK, torch.zeros_like(ids_BK), alpha, self._model.config.tile)
        return self._model.read(merged, self._p4, self._p5)
