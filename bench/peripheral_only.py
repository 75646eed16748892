"""The same weights without the close look: the line K = 0, as a graph of its own, so that it can be timed like the others."""

from __future__ import annotations

from torch import Tensor

from apex_train.model.detector import ApexDetector, Outputs
from apex_train.model.router import select_tiles, selection_key


class PeripheralDetector(ApexDetector):
    """Takes the weights and the inputs of an ApexDetector and looks at no tile, whatever ``tiles`` says.

    The router still runs, so that inputs and outputs of the graph stay the same; it decides nothing.
    """

    def forward(self, images_BHW3: Tensor, tiles: int, tile_bonus_BN: Tensor, with_peripheral: bool = False) -> Outputs:
        p3, p4, p5 = self.peripheral(self.normalise(images_BHW3))
        utilities = self.router(p3)
        ids = select_tiles(selection_key(utilities, tile_bonus_BN), tiles, self._rank(images_BHW3))
        heads = self.read(p3, p4, p5)
        return Outputs(heads, utilities, ids, utilities.new_zeros(ids.shape[0], 0, 1, 0, 0), heads if with_peripheral else None)


def without_tiles(model: ApexDetector) -> PeripheralDetector:
    """The peripheral twin of a routed model, with copies of its weights."""
    twin = PeripheralDetector(model.config)
    twin.load_state_dict(model.state_dict())
    return twin.eval()
