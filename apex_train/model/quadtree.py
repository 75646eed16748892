"""The quadtree of tiles in torch (DESIGN rule 8): the choice among children, what a level sees, and the sequence of all tiles.

Its NumPy twin, with the numbering of tiles, is ``apex_runtime.routing.quadtree``. At depth 1 nothing in here adds an operation.

Shapes: B images, N tiles of a level, K chosen ones, C channels, n = tile / 8 cells, s image pixels per pixel seen, a side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from apex_train.model.foveal import TileContext
from apex_train.model.router import select_tiles

Part = TypeVar("Part")


@dataclass(frozen=True)
class Level:
    """What the router did on one level: utilities [B,N] of all its tiles, ids [B,K] of the chosen ones."""

    utilities: Tensor
    tile_ids: Tensor


def routing_outputs(levels: Sequence[Level]) -> dict[str, Tensor]:
    """The graph's outputs about tiles: ``tile_ids`` and ``tile_levels`` [B,K] of all levels, ``utilities`` [B,N] of each."""
    ids = joined([level.tile_ids for level in levels])
    found = joined([levels_like(item.tile_ids, level) for level, item in enumerate(levels)])
    names = ("utilities", *(f"utilities_{level}" for level in range(1, len(levels))))
    return {"tile_ids": ids, "tile_levels": found} | {name: level.utilities for name, level in zip(names, levels, strict=True)}


def is_empty(ids_BK: Tensor) -> bool:
    """True where no tile was chosen and Python knows it; in a graph that is being exported the number is not known."""
    count = ids_BK.shape[1]
    return isinstance(count, int) and count == 0


def levels_like(ids_BK: Tensor, level: int) -> Tensor:
    """``level`` for every tile, int64 [B,K]."""
    return torch.full_like(ids_BK, level) if level else torch.zeros_like(ids_BK)


def joined(parts: Sequence[Tensor]) -> Tensor:
    """The parts of all levels, one after the other along K."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=1)


def divided(whole: Tensor, counts: Sequence[int]) -> list[Tensor]:
    """``joined`` undone: the parts of ``counts`` tiles each."""
    return [whole] if len(counts) == 1 else list(torch.split(whole, list(counts), dim=1))


def children_of(parents_BK: Tensor, cols: int) -> Tensor:
    """Ids [B,4K] of the children of tiles on a grid of ``cols`` columns, those of one parent side by side."""
    first_BK = parents_BK // cols * (4 * cols) + parents_BK % cols * 2
    within = torch.tensor([0, 1, 2 * cols, 2 * cols + 1], device=parents_BK.device)
    return (first_BK[..., None] + within).flatten(1)


def select_children(key_BN: Tensor, parents_BK: Tensor, cols: int, tiles: int, rank_N: Tensor) -> Tensor:
    """Ids of the ``tiles`` children with the largest keys, int64, in the order of ``rank_N``.

    ``cols`` is the width of the parents' grid. The keys are those of the whole level, so that they are exact and never equal, but
    only the children take part. ``tiles`` may be 0.
    """
    candidates_BX = children_of(parents_BK, cols)
    chosen_BK = torch.topk(torch.gather(key_BN, 1, candidates_BX), tiles, dim=1).indices
    ids_BK = torch.gather(candidates_BX, 1, chosen_BK)
    order_BK = torch.topk(-rank_N[ids_BK], tiles, dim=1).indices
    return torch.gather(ids_BK, 1, order_BK)


def choose(keys: Sequence[Tensor], tiles: Sequence[int], cols: int, ranks: Sequence[Tensor]) -> list[Tensor]:
    """Ids [B,K] per level from keys [B,N] and K per level. ``cols`` is the width of level 0, ``ranks`` are ``sequence_ranks``."""
    ids = [select_tiles(keys[0], tiles[0], ranks[0])]
    for level in range(1, len(keys)):
        ids.append(select_children(keys[level], ids[-1], cols << (level - 1), tiles[level], ranks[level]))
    return ids


def reduced(pixels_BKCPP: Tensor, scale: int) -> Tensor:
    """Mean of ``scale`` x ``scale`` pixels, [B,K,C,P,P] -> [B,K,C,P/s,P/s]: a mean over rows, then over columns, as in the
    peripheral stream."""
    if scale == 1:
        return pixels_BKCPP
    return pixels_BKCPP.unflatten(3, (-1, scale)).mean(4).unflatten(4, (-1, scale)).mean(5)


def enlarged(tiles_BKCnn: Tensor, scale: int) -> Tensor:
    """Every cell repeated ``scale`` x ``scale`` times, [B,K,C,n,n] -> [B,K,C,sn,sn]."""
    if scale == 1:
        return tiles_BKCnn
    b, k, c, n, _ = tiles_BKCnn.shape
    return tiles_BKCnn[:, :, :, :, None, :, None].expand(b, k, c, n, scale, n, scale).reshape(b, k, c, n * scale, n * scale)


def in_context(context: TileContext, tiles_BKCnn: Tensor, rank_BK: Tensor) -> Tensor:
    """``context`` over tiles that are not in sequence: ``rank_BK`` says which comes when. Only their tokens are moved."""
    count = tiles_BKCnn.shape[1]
    order_BK = torch.topk(-rank_BK, count, dim=1).indices
    place_BK = torch.topk(-order_BK.float(), count, dim=1).indices  # the inverse: where each tile went
    tokens_BKC = _taken(tiles_BKCnn.mean((3, 4)), order_BK)
    scale_BKC, shift_BKC = (_taken(item, place_BK) for item in context.modulation(tokens_BKC))
    return tiles_BKCnn * scale_BKC[..., None, None] + shift_BKC[..., None, None]


def _taken(tokens_BKC: Tensor, index_BK: Tensor) -> Tensor:
    return torch.gather(tokens_BKC, 1, index_BK[..., None].expand(-1, -1, tokens_BKC.shape[2]))
