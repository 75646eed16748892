"""From a budget to numbers of tiles: K, or with several levels of tiles one K per level.

A budget counts tiles of all levels, for they cost the same. It is shared among the levels in the ratio that the file carries;
what a level cannot take goes to the others. Padding is never looked at: level 0 gets at most its content tiles, and a finer level
at most as many as *any* choice of tiles above it has content children, since which are chosen is decided in the graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from apex_runtime.backends.session import Tiles
from apex_runtime.errors import UsageError
from apex_runtime.model_info import ModelInfo, TileInfo
from apex_runtime.routing.budget import Budget
from apex_runtime.routing.quadtree import children


@dataclass(frozen=True, eq=False)
class Room:
    """How many tiles there is content for. ``first``: of level 0. ``below[l][k]``: content children that any ``k`` content tiles
    of level l have at least, int64 [content tiles of level l + 1]."""

    first: int
    below: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, content_N: np.ndarray, tiles: TileInfo) -> Room:
        """``content_N``: bool over the tiles of all levels."""
        levels = [content_N[grid.flat] for grid in tiles.levels]
        below = []
        for grid, here, finer in zip(tiles.levels, levels, levels[1:], strict=False):
            counts = finer[children(np.flatnonzero(here), grid.cols)].sum(-1)
            below.append(np.concatenate([[0], np.cumsum(np.sort(counts))]))
        return cls(int(levels[0].sum()), tuple(below))


def plan_tiles(budget: Budget, content_N: np.ndarray, info: ModelInfo) -> Tiles:
    """K for an image whose content tiles are ``content_N``, bool over the tiles of all levels; a tuple when there are several.

    Raises UsageError when the budget means nothing for this model.
    """
    depth = info.tiles.depth
    if len(budget.levels) > depth:
        raise UsageError(
            f"--tiles {budget.asked}: this engine has {depth} level(s) of tiles.", f"Give at most {depth} number(s)."
        )
    if depth == 1:
        return budget.tiles_for(int(content_N.sum()), info.tiles.count, info)
    room = Room.of(content_N, info.tiles)
    if budget.levels:
        return clip_levels((*budget.levels, *(0,) * (depth - len(budget.levels))), room)
    return split_tiles(budget.tiles_for(int(content_N.sum()), info.tiles.count, info), info.tiles.ratio, room)


def clip_levels(wanted: Sequence[int], room: Room) -> tuple[int, ...]:
    """What there is room for of the numbers that were asked for, one per level; at least one tile of level 0."""
    found = [max(1, min(wanted[0], room.first))]
    for count, below in zip(wanted[1:], room.below, strict=True):
        found.append(min(count, int(below[found[-1]])))
    return tuple(found)


def split_tiles(total: int, ratio: Sequence[float], room: Room) -> tuple[int, ...]:
    """``total`` tiles as one number per level, adding up to ``total`` or to all there is room for.

    Every level takes its share of what is left, rounded down, and more only where the finer ones could not take the rest.
    """
    most = _most(room)
    found: list[int] = []
    for level, reach in enumerate(most):
        left = total - sum(found)
        share = math.floor(left * ratio[level] / sum(ratio[level:]) + 1e-9)
        needed = int(np.searchsorted(reach, left))  # the fewest with which level and finer ones can take what is left
        limit = int(room.below[level - 1][found[-1]]) if level else room.first
        found.append(min(max(share, needed, 0 if level else 1), limit))
    return tuple(found)


def _most(room: Room) -> list[np.ndarray]:
    """Per level, the most tiles that it and the finer levels take together when it takes k, for every k. Rising."""
    sizes = [room.first, *(int(below[-1]) for below in room.below)]
    most = [np.arange(sizes[-1] + 1)]
    for size, below in zip(reversed(sizes[:-1]), reversed(room.below), strict=True):
        most.insert(0, np.arange(size + 1) + most[0][below[: size + 1]])
    return most
