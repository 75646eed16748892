"""The same weights without the close look: the line K = 0, as a graph of its own, so that it can be timed like the others."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from apex_train.model.detector import ApexDetector, Outputs


class PeripheralDetector(ApexDetector):
    """Takes the weights and the inputs of an ApexDetector and looks at no tile, whatever ``tiles`` says.

    The router still runs, so that inputs and outputs of the graph stay the same; it decides nothing.
    """

    def forward(
        self,
        images_BHW3: Tensor,
        tiles: int | Sequence[int],
        tile_bonus: Tensor | Sequence[Tensor],
        with_peripheral: bool = False,
    ) -> Outputs:
        p3, p4, p5 = self.peripheral(self.normalise(images_BHW3))
        (first, *finer), _ = self.route(self.evidence(p3, p4, p5), tiles, tile_bonus)
        heads, nothing = self.read(p3, p4, p5), p3.new_zeros(p3.shape[0], 0, 1, 0, 0)
        return Outputs(heads, first.utilities, first.tile_ids, nothing, heads if with_peripheral else None, tuple(finer))


def without_tiles(model: ApexDetector) -> PeripheralDetector:
    """The peripheral twin of a routed model, with copies of its weights."""
    twin = PeripheralDetector(model.config)
    twin.load_state_dict(model.state_dict())
    return twin.eval()
