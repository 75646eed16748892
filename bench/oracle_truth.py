"""What looking at a tile is worth: the training loss without it minus the training loss with it, exactly, and fast.

What does not depend on the choice is computed once per image: the peripheral pyramid, and the foveal features of every tile. For
a choice only the rest runs again: the scan over its tokens (which mixes the tiles, so that features after it are those of this
choice alone), gate, merge, neck, heads and loss, many choices at a time. The numbers are those of ``ApexDetector.forward`` with
the choice forced by ``tile_bonus`` and of ``compute_training_losses``, to rounding; a test holds them to it.

Legend: N tiles of the grid, K tiles of a choice, X choices at a time, C channels, n cells of a tile's side, A anchors.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

import numpy as np
import torch
from oracle_loss import ImageLoss
from torch import Tensor

from apex_plugins.tile_pack.torch_op import tile_pack
from apex_plugins.tile_unpack_fusion.torch_op import tile_unpack_fusion
from apex_runtime.routing.grid import padding_bonus
from apex_runtime.routing.hilbert import hilbert_rank
from apex_runtime.routing.selection import select_tiles, selection_keys
from apex_train.config import LossConfig
from apex_train.data.loader import Batch
from apex_train.model.config import STRIDES
from apex_train.model.detector import ApexDetector, chosen_cells

CHUNK = 8  # choices at a time: the assignment keeps about ten numbers per choice, object and anchor
TILES_AT_A_TIME = 32


class TileTruth:
    """One image (a batch of one) and every state that its tiles can be in.

    ``utilities`` float32 [N] is what the router says of them. The model must be in evaluation mode, on a CPU.
    """

    @torch.inference_mode()
    def __init__(self, model: ApexDetector, batch: Batch, config: LossConfig) -> None:
        if len(batch) != 1:
            raise ValueError(f"the truth of a tile is one of a single image, got {len(batch)}")
        self.model, self.loss = model, ImageLoss(batch, config)
        image = model.normalise(batch.images)
        self.pyramid = model.peripheral(image)
        self.utilities: np.ndarray = model.router(self.pyramid[0])[0].numpy()
        self.grid = model.config.grid(*batch.images.shape[1:3])
        self.rank = hilbert_rank(*self.grid)
        self.detail_NCnn = torch.cat([self._look(image, ids) for ids in torch.arange(self.count).split(TILES_AT_A_TIME)])
        self.mean_NC = self.detail_NCnn.mean((2, 3))

    @property
    def count(self) -> int:
        """N."""
        return self.grid[0] * self.grid[1]

    def router_choice(self, tiles: int, content_N: np.ndarray) -> list[int]:
        """The ids that the engine looks at by itself with a budget of ``tiles``; padding (False in ``content_N``) comes last."""
        keys = selection_keys(self.utilities[None], padding_bonus(content_N)[None])
        return select_tiles(keys, tiles, self.rank)[0].tolist()

    def gains(self, background: Collection[int], candidates: Collection[int]) -> np.ndarray:
        """float64 [N]: loss without tile i minus loss with it, the other tiles of ``background`` looked at; NaN for tiles
        that are not among the ``candidates``."""
        ground = frozenset(background)
        asked = sorted(candidates)
        whole, *toggled = self.losses([ground, *(ground ^ {tile} for tile in asked)])
        found = np.full(self.count, np.nan)
        for tile, loss in zip(asked, toggled, strict=True):
            found[tile] = loss - whole if tile in ground else whole - loss
        return found

    @torch.inference_mode()
    def losses(self, choices: Sequence[Collection[int]]) -> np.ndarray:
        """float64 [len(choices)]: the training loss with exactly these tiles looked at; with none, of the peripheral stream."""
        by_size: dict[int, list[int]] = defaultdict(list)
        for place, choice in enumerate(choices):
            by_size[len(choice)].append(place)
        found = np.zeros(len(choices))
        for places in by_size.values():
            for start in range(0, len(places), CHUNK):
                part = places[start : start + CHUNK]
                merged = self._merged([choices[place] for place in part])
                found[part] = self.loss(self.model.read(merged, *self._widened(len(part)))).numpy()
        return found

    def _look(self, image_13HW: Tensor, ids_K: Tensor) -> Tensor:
        """Foveal features [K,C,n,n], before the scan."""
        config = self.model.config
        tiles = tile_pack(image_13HW, ids_K[None], torch.zeros_like(ids_K)[None], config.tile, config.halo)
        return self.model.foveal(tiles[0])

    def _widened(self, count: int) -> tuple[Tensor, Tensor]:
        """The coarser peripheral levels, once per choice."""
        p4, p5 = (level.expand(count, -1, -1, -1) for level in self.pyramid[1:])
        return p4, p5

    def _merged(self, choices: list[Collection[int]]) -> Tensor:
        """The stride-8 map [X,C,h,w] of choices of one size."""
        p3 = self.pyramid[0].expand(len(choices), -1, -1, -1)
        if not choices[0]:
            return p3
        ids_XK = torch.tensor([sorted(choice, key=self.rank.__getitem__) for choice in choices])
        scale, shift = self.model.context.modulation(self.mean_NC[ids_XK])
        detail = self.detail_NCnn[ids_XK] * scale[..., None, None] + shift[..., None, None]
        heavy = chosen_cells(p3, ids_XK, self.model.config.tile // STRIDES[0]) + detail
        return tile_unpack_fusion(p3, heavy, ids_XK, torch.zeros_like(ids_XK), self.model.gate(detail), self.model.config.tile)
