"""Pictures of which some tiles have been seen, and what the heads say when only some of these are looked at.

The streams run once, however many choices of tiles are compared: only what a choice changes is computed for each of them.

Shapes: B images, U seen tiles of a level, K of a choice. What is "per level" has one entry for each, the coarsest first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from apex_train.model.detector import ApexDetector, HeadOutputs
from apex_train.model.quadtree import Level, divided, is_empty, joined


class Glance:
    """Images uint8 [B,H,W,3] through the peripheral stream and the router of ``model``, in the mode that the model is in."""

    def __init__(self, model: ApexDetector, images_BHW3: Tensor) -> None:
        self._model = model
        self._counts = model.config.counts(*images_BHW3.shape[1:3])
        self._image = model.normalise(images_BHW3)
        self._base, self._p4, self._p5 = model.peripheral(self._image)
        self._evidence = model.evidence(self._base, self._p4, self._p5)

    def choose(self, tiles: Sequence[int]) -> tuple[Level, ...]:
        """The router's own choice of ``tiles`` per level."""
        nothing = self._base.new_zeros(len(self._base), sum(self._counts))
        levels, self._ranks = self._model.route(self._evidence, tiles, nothing)
        return levels

    def see(self, ids: Sequence[Tensor]) -> None:
        """Run the foveal stream on the tiles [B,U] per level; ``read`` may then be asked for any part of them."""
        seen = divided(self._model.see(self._image, ids), [item.shape[1] for item in ids])
        self._seen, self._place = seen, [self._places(item, count) for item, count in zip(ids, self._counts, strict=True)]

    def _places(self, ids_BU: Tensor, count: int) -> Tensor:
        places = torch.arange(ids_BU.shape[1], device=ids_BU.device).expand_as(ids_BU)
        return torch.zeros(len(ids_BU), count, dtype=torch.int64, device=ids_BU.device).scatter_(1, ids_BU, places)

    def read(self, ids: Sequence[Tensor]) -> HeadOutputs:
        """What the heads say when the tiles [B,K] per level, in any order, are looked at and no others; K may be 0."""
        if all(is_empty(item) for item in ids):
            return self._model.read(self._base, self._p4, self._p5)
        ids = [torch.gather(item, 1, rank[item].argsort(1)) for item, rank in zip(ids, self._ranks, strict=True)]
        image_B1 = torch.arange(len(self._base), device=self._base.device)[:, None]
        places = (torch.gather(place, 1, item) for place, item in zip(self._place, ids, strict=True))
        seen = joined([seen[image_B1, place] for seen, place in zip(self._seen, places, strict=True)])
        heavy, alpha = self._model.weigh(seen, self._base, ids, self._ranks)
        return self._model.read(self._model.fuse(self._base, heavy, alpha, ids), self._p4, self._p5)
