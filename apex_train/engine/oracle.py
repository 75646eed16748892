"""Labels for the router: what looking at a tile is worth, from real passes of the network as it would be deployed.

The router's own choice is the background. A chosen tile is left out, a tile that was not chosen is added, and the loss before and
after is compared. Both sides are measured against one assignment, that of the pass which looks at all of these tiles: with an
assignment each, a better look raises the soft targets and with them the loss, and a tile of nuclei seemed worth less than an
empty one.

Shapes: B images, N tiles of a level, K chosen ones, M that are asked about.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from apex_train.config import LossConfig
from apex_train.data.loader import Batch
from apex_train.losses.compute import Matcher, detection_terms
from apex_train.model.deployed import as_deployed
from apex_train.model.detector import ApexDetector, HeadOutputs
from apex_train.model.glance import Glance
from apex_train.model.quadtree import Level, children_of, divided

LEAST = 4  # tiles per level: with fewer only the extremes would be asked about


@torch.no_grad()
def tile_gains(
    model: ApexDetector, batch: Batch, config: LossConfig, tiles: Sequence[int], sampled: int, chance_BN: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Per level ids int64 [B,M], and what looking at each of these tiles removes from the loss, float32 [B,M].

    ``tiles`` is the background's number per level; ``sampled`` tiles per image are asked about, an equal part on every level and
    at least LEAST.
    Tiles of a level are asked about without those of finer levels, children of those above. ``chance_BN``, uniform random
    numbers for the tiles of all levels, decides which.
    """
    with as_deployed(model), torch.autocast(chance_BN.device.type, enabled=False):  # differences of losses: in full precision
        view = Glance(model, batch.images)
        counts = model.config.counts(*batch.images.shape[1:3])
        cols = model.config.grid(*batch.images.shape[1:3])[1]
        chance = divided(chance_BN, counts)
        share = max(LEAST, sampled // len(counts))
        found = []
        for level in range(len(counts)):
            own = view.choose([*tiles[: level + 1], *[0] * (len(counts) - level - 1)])
            candidates_BN = _candidates(own, level, cols)
            asked = sample_tiles(own[level].utilities, own[level].tile_ids, candidates_BN, share, chance[level])
            found.append(_gains(view, own, level, asked, batch, config))
        return found


def _candidates(own: Sequence[Level], level: int, cols: int) -> Tensor:
    """bool [B,N]: the tiles of a level that may be chosen, all of level 0 and the children of the chosen ones beyond."""
    utilities_BN = own[level].utilities
    if level == 0:
        return torch.ones_like(utilities_BN, dtype=torch.bool)
    children_BX = children_of(own[level - 1].tile_ids, cols << (level - 1))
    return torch.zeros_like(utilities_BN, dtype=torch.bool).scatter_(1, children_BX, True)


def _gains(
    view: Glance, own: Sequence[Level], level: int, asked: tuple[Tensor, Tensor], batch: Batch, config: LossConfig
) -> tuple[Tensor, Tensor]:
    ids = [item.tile_ids for item in own]
    inside_BI, outside_BO = asked

    def at(tiles_BK: Tensor) -> list[Tensor]:
        return [*ids[:level], tiles_BK, *ids[level + 1 :]]

    every = at(torch.cat([ids[level], outside_BO], 1))
    view.see(every)
    matcher = Matcher(view.read(every), batch, config)

    def loss_B(heads: HeadOutputs) -> Tensor:
        return detection_terms(heads, batch, matcher, config).loss_B

    def changes() -> Iterator[Tensor]:
        before_B = loss_B(view.read(ids))
        for id_B in inside_BI.unbind(1):
            yield loss_B(view.read(at(_others(ids[level], id_B)))) - before_B
        for id_B in outside_BO.unbind(1):
            yield before_B - loss_B(view.read(at(torch.cat([ids[level], id_B[:, None]], 1))))

    return torch.cat([inside_BI, outside_BO], 1), torch.stack(list(changes()), 1)


def sample_tiles(
    utilities_BN: Tensor, chosen_BK: Tensor, candidates_BN: Tensor, sampled: int, chance_BN: Tensor
) -> tuple[Tensor, Tensor]:
    """Which of the candidates are asked about: ids [B,I] of chosen ones and ids [B,O] of others, half and half where there are as
    many. Every image has as many candidates.

    Of each half one is uncertain (the last to be chosen, the first not to be), of the others one comes from the long tail (the
    least wanted one, of which the router would never hear), and all the rest is random.
    """
    chosen_BN = torch.zeros_like(candidates_BN).scatter_(1, chosen_BK, True)
    others_BN = candidates_BN & ~chosen_BN
    tiles, rest = chosen_BK.shape[1], int(others_BN[0].sum())
    outside = min(rest, sampled - min(tiles, sampled // 2))
    inside = min(tiles, sampled - outside)
    low, first = utilities_BN.new_full((), -torch.inf), chance_BN.new_full((), 2.0)
    extremes = ((others_BN, -utilities_BN), (others_BN, utilities_BN), (chosen_BN, -utilities_BN))
    wish_BN = chance_BN.clone()  # the largest are asked
    for among_BN, value_BN in extremes:
        place_B1 = torch.where(among_BN, value_BN, low).argmax(1, keepdim=True)
        wish_BN.scatter_add_(1, place_B1, first.expand(len(wish_BN), 1))
    inside_BI = torch.where(chosen_BN, wish_BN, -1.0).topk(inside, dim=1).indices
    outside_BO = torch.where(others_BN, wish_BN, -1.0).topk(outside, dim=1).indices
    return inside_BI, outside_BO


def _others(ids_BK: Tensor, id_B: Tensor) -> Tensor:
    """The ids without one of them, [B,K-1]."""
    return ids_BK[ids_BK != id_B[:, None]].view(len(ids_BK), -1)
