"""Labels for the router: what looking at a tile is worth, from real passes of the network as it would be deployed.

The router's own choice is the background. A chosen tile is left out, a tile that was not chosen is added, and the loss before and
after is compared. Both sides are measured against one assignment, that of the pass which looks at all of these tiles: with an
assignment each, a better look raises the soft targets and with them the loss, and a tile of nuclei seemed worth less than an
empty one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from apex_train.config import LossConfig
from apex_train.data.loader import Batch
from apex_train.losses.compute import Matcher, detection_terms
from apex_train.model.detector import ApexDetector, HeadOutputs
from apex_train.model.glance import Glance


@torch.no_grad()
def tile_gains(
    model: ApexDetector, batch: Batch, config: LossConfig, tiles: int, sampled: int, chance_BN: Tensor
) -> tuple[Tensor, Tensor]:
    """Ids int64 [B,M] of about ``sampled`` tiles per image, and what looking at each removes from the loss, float32 [B,M].

    ``tiles`` is the number of tiles of the background, ``chance_BN`` uniform random numbers that decide which tiles are asked.
    """
    device = chance_BN.device.type
    with _deployed(model), torch.autocast(device, enabled=False):  # differences of losses: in full precision
        view = Glance(model, batch.images)
        chosen_BK = view.choose(tiles)
        inside_BI, outside_BO = sample_tiles(view.utilities_BN, chosen_BK, sampled, chance_BN)
        every_BU = torch.cat([chosen_BK, outside_BO], 1)
        view.see(every_BU)
        matcher = Matcher(view.read(every_BU), batch, config)

        def loss_B(heads: HeadOutputs) -> Tensor:
            return detection_terms(heads, batch, matcher, config).loss_B

        before_B = loss_B(view.read(chosen_BK))
        without = [loss_B(view.read(_others(chosen_BK, id_B))) - before_B for id_B in inside_BI.unbind(1)]
        added = [before_B - loss_B(view.read(torch.cat([chosen_BK, id_B[:, None]], 1))) for id_B in outside_BO.unbind(1)]
        return torch.cat([inside_BI, outside_BO], 1), torch.stack([*without, *added], 1)


def sample_tiles(utilities_BN: Tensor, chosen_BK: Tensor, sampled: int, chance_BN: Tensor) -> tuple[Tensor, Tensor]:
    """Which tiles are asked about: ids [B,I] of chosen ones and ids [B,O] of others, half and half where there are as many.

    Of each half one is uncertain (the last to be chosen, the first not to be), of the others one comes from the long tail (the
    least wanted one, of which the router would never hear), and all the rest is random.
    """
    chosen_BN = torch.zeros_like(utilities_BN, dtype=torch.bool).scatter_(1, chosen_BK, True)
    count, tiles = utilities_BN.shape[1], chosen_BK.shape[1]
    outside = min(count - tiles, sampled - min(tiles, sampled // 2))
    inside = min(tiles, sampled - outside)
    first, last = chance_BN.new_full((), 2.0), utilities_BN.new_full((), torch.inf)
    wish_BN = chance_BN.clone()  # the largest are asked
    uncertain_B1 = torch.where(chosen_BN, -utilities_BN, -last).argmax(1, keepdim=True)
    nearly_B1 = torch.where(chosen_BN, -last, utilities_BN).argmax(1, keepdim=True)
    least_B1 = torch.where(chosen_BN, -last, -utilities_BN).argmax(1, keepdim=True)
    for place_B1 in (least_B1, nearly_B1, uncertain_B1):
        wish_BN.scatter_add_(1, place_B1, first.expand(len(wish_BN), 1))
    inside_BI = torch.where(chosen_BN, wish_BN, -1.0).topk(inside, dim=1).indices
    outside_BO = torch.where(chosen_BN, -1.0, wish_BN).topk(outside, dim=1).indices
    return inside_BI, outside_BO


def _others(ids_BK: Tensor, id_B: Tensor) -> Tensor:
    """The ids without one of them, [B,K-1]."""
    return ids_BK[ids_BK != id_B[:, None]].view(len(ids_BK), -1)


@contextlib.contextmanager
def _deployed(model: nn.Module) -> Iterator[None]:
    """The model as in inference, and every module as it was afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
