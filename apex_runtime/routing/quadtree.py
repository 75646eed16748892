"""The quadtree of tiles: which are the children of which, and the NumPy twin of the choice among them.

Level 0 is the coarsest. Tile (r, c) of a level has the children (2r, 2c), (2r, 2c+1), (2r+1, 2c), (2r+1, 2c+1) of the next; ids
are row-major on each level's own grid. A level's keys are those of ``selection``, over all of its tiles; below level 0 only
children of chosen tiles take part, so a tile is never looked at closely where its parent was not.

Legend: B images, N tiles of a level, K chosen ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from apex_runtime.model_info import TileInfo, output_names
from apex_runtime.routing.hilbert import hilbert_rank
from apex_runtime.routing.selection import select_tiles

CHILDREN = 4


def children(ids: np.ndarray, cols: int) -> np.ndarray:
    """int64 [...,4]: the ids of the children of ``ids`` [...], whose level has ``cols`` columns."""
    first = ids // cols * (4 * cols) + ids % cols * 2
    return np.asarray(first[..., None] + np.array([0, 1, 2 * cols, 2 * cols + 1]), np.int64)


def flat_ids(ids_K: np.ndarray, levels_K: np.ndarray, tiles: TileInfo) -> np.ndarray:
    """int64 [K]: the flat numbers (``TileInfo``) of tiles that are named by id and level."""
    return np.asarray(np.array([grid.first for grid in tiles.levels])[levels_K] + ids_K, np.int64)


def flat_utilities(outputs: Mapping[str, np.ndarray], tiles: TileInfo) -> np.ndarray:
    """float32 [B,N]: the utilities of the tiles of all levels, from the outputs of the graph."""
    names = [name for name in output_names(tiles.depth) if name.startswith("utilities")]
    return np.concatenate([outputs[name] for name in names], axis=1)


def sequence_ranks(rows: int, cols: int, depth: int) -> tuple[np.ndarray, ...]:
    """int64 [N] per level: where a tile stands in the sequence of all tiles of all levels, for ``depth`` levels of which level 0
    has ``rows`` x ``cols`` tiles.

    The order is that of the Hilbert curve on the finest grid, where a tile stands at the first of the places it covers (aligned
    squares are runs of the curve) and before its children. No two numbers are equal; they are not dense. With one level it is
    ``hilbert_rank``.
    """
    finest = 1 << (depth - 1)
    places = hilbert_rank(rows * finest, cols * finest).reshape(rows * finest, cols * finest)
    ranks = []
    for level in range(depth):
        side = finest >> level
        first = places.reshape(rows << level, side, cols << level, side).min((1, 3))
        ranks.append(first.reshape(-1) * depth + level)
    return tuple(ranks)


def select_levels(keys: Sequence[np.ndarray], tiles: Sequence[int], rows: int, cols: int) -> tuple[np.ndarray, ...]:
    """int64 [B,K] per level: ``tiles[0]`` tiles of level 0 (``rows`` x ``cols``), ``tiles[1]`` of their children, and so on.

    ``keys``: float32 [B,N] per level. Every level is in the order of ``sequence_ranks``. Raises ValueError when K is not in
    1..N on level 0, or not in 0..4 times the K of the level above.
    """
    ranks = sequence_ranks(rows, cols, len(keys))
    chosen = [select_tiles(keys[0], tiles[0], ranks[0])]
    for level in range(1, len(keys)):
        candidates_BX = children(chosen[-1], cols << (level - 1)).reshape(len(keys[0]), -1)
        chosen.append(_best(keys[level], candidates_BX, tiles[level], ranks[level]))
    return tuple(chosen)


def _best(keys_BN: np.ndarray, candidates_BX: np.ndarray, k: int, rank_N: np.ndarray) -> np.ndarray:
    if k == 0:
        return np.zeros((len(keys_BN), 0), np.int64)
    places_BK = select_tiles(np.take_along_axis(keys_BN, candidates_BX, 1), k, np.arange(candidates_BX.shape[1]))
    ids_BK = np.take_along_axis(candidates_BX, places_BK, 1)
    return np.take_along_axis(ids_BK, np.argsort(rank_N[ids_BK], axis=1), 1)
