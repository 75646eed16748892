"""The same weights without routing: the foveal stream on the whole image at once. The yardstick for what tiling itself costs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from apex_runtime.routing.hilbert import hilbert_rank
from apex_train.model.config import STRIDES
from apex_train.model.detector import ApexDetector
from apex_train.model.quadtree import Level


class DenseDetector(ApexDetector):
    """Takes the weights and the inputs of an ApexDetector and looks closely at every pixel, whatever ``tiles`` says.

    The router still runs, so that inputs and outputs of the graph stay the same; it decides nothing.
    """

    def look(
        self, image_B3HW: Tensor, base_BChw: Tensor, levels: Sequence[Level], ranks: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        halo = self.config.halo
        detail = self.foveal(F.pad(image_B3HW, (halo, halo, halo, halo)))
        scale, shift = self._modulation(detail)
        detail = detail * scale + shift
        alpha = torch.sigmoid(self.gate.score(detail))
        return base_BChw + alpha * detail, alpha

    def _modulation(self, detail_BChw: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift [B,C,h,w]: one pair per tile, from tokens in Hilbert order."""
        cells = self.config.tile // STRIDES[0]
        mean = F.avg_pool2d(detail_BChw, cells)
        rank = torch.from_numpy(hilbert_rank(*mean.shape[2:]))
        pair = self.context.modulation(mean.flatten(2).transpose(1, 2)[:, torch.argsort(rank)])
        scale, shift = (
            F.interpolate(item[:, rank].transpose(1, 2).unflatten(2, mean.shape[2:]), scale_factor=float(cells)) for item in pair
        )
        return scale, shift


def densify(model: ApexDetector) -> DenseDetector:
    """The dense twin of a routed model, with copies of its weights."""
    dense = DenseDetector(model.config)
    dense.load_state_dict(model.state_dict())
    return dense.eval()
