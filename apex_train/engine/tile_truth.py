"""What looking at a tile is worth in one image: the loss without it minus the loss with it, exactly, for every tile.

Measured as the router is taught (``apex_train.engine.oracle``): the streams run once, every choice has its own scan, merge, heads
and loss, and all choices are held against one assignment, that of the pass which looks at all tiles of the image.

Legend: N tiles of the grid, K tiles of a choice.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from apex_runtime.routing.grid import padding_bonus
from apex_runtime.routing.hilbert import hilbert_rank
from apex_runtime.routing.selection import select_tiles, selection_keys
from apex_train.config import LossConfig
from apex_train.data.loader import Batch
from apex_train.losses.compute import Matcher, detection_terms
from apex_train.model.detector import ApexDetector
from apex_train.model.glance import Glance


class TileTruth:
    """One image (a batch of one) and every state that its tiles can be in.

    ``content_N`` bool [N] says which tiles show the image. ``utilities`` float32 [N] is what the router says of them. The model
    must be in evaluation mode, on a CPU. Losses are per object of the image.
    """

    @torch.inference_mode()
    def __init__(self, model: ApexDetector, batch: Batch, config: LossConfig, content_N: np.ndarray) -> None:
        if len(batch) != 1:
            raise ValueError(f"the truth of a tile is one of a single image, got {len(batch)}")
        self._batch, self._config, self._content_N = batch, config, content_N
        self.grid = model.config.grid(*batch.images.shape[1:3])
        self._view = Glance(model, batch.images)
        self.utilities: np.ndarray = self._view.choose([1])[0].utilities[0].numpy()
        self._view.see([torch.arange(len(content_N))[None]])
        self._matcher = Matcher(self._view.read(_ids(np.flatnonzero(content_N))), batch, config)

    def router_choice(self, tiles: int) -> list[int]:
        """The ids that the engine looks at by itself with a budget of ``tiles``; padding comes last."""
        keys = selection_keys(self.utilities[None], padding_bonus(self._content_N)[None])
        return select_tiles(keys, tiles, hilbert_rank(*self.grid))[0].tolist()

    def gains(self, background: Collection[int], candidates: Collection[int]) -> np.ndarray:
        """float64 [N]: loss without tile i minus loss with it, the other tiles of ``background`` looked at; NaN for tiles
        that are not among the ``candidates``."""
        ground = frozenset(background)
        asked = sorted(candidates)
        whole, *toggled = self.losses([ground, *(ground ^ {tile} for tile in asked)])
        found = np.full(len(self._content_N), np.nan)
        for tile, loss in zip(asked, toggled, strict=True):
            found[tile] = loss - whole if tile in ground else whole - loss
        return found

    @torch.inference_mode()
    def losses(self, choices: Sequence[Collection[int]]) -> np.ndarray:
        """float64 [len(choices)]: the loss with exactly these tiles looked at; with none, of the peripheral stream."""
        heads = (self._view.read(_ids(sorted(choice))) for choice in choices)
        terms = (detection_terms(item, self._batch, self._matcher, self._config) for item in heads)
        return np.array([float(item.loss_B) for item in terms]) / max(1, self._batch.objects)


def _ids(choice: Sequence[int] | np.ndarray) -> list[Tensor]:
    return [torch.tensor(list(choice), dtype=torch.int64)[None]]
