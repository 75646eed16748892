"""The same weights without the close look: the line K = 0, as a graph of its own, so that it can be timed like the others."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from apex_train.model.detector import ApexDetector
from apex_train.model.quadtree import Level


class PeripheralDetector(ApexDetector):
    """Takes the weights and the inputs of an ApexDetector and looks at no tile, whatever ``tiles`` says.

    The router still runs, so that inputs and outputs of the graph stay the same; it decides nothing.
    """

    def look(
        self, image_B3HW: Tensor, base_BChw: Tensor, levels: Sequence[Level], ranks: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        return base_BChw, base_BChw.new_zeros(base_BChw.shape[0], 0, 1, 0, 0)


def without_tiles(model: ApexDetector) -> PeripheralDetector:
    """The peripheral twin of a routed model, with copies of its weights."""
    twin = PeripheralDetector(model.config)
    twin.load_state_dict(model.state_dict())
    return twin.eval()
