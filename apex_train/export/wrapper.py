"""The detector as it is traced: everything in which the exported graph differs from a training step is written here.

The graph's inputs and outputs are those of DESIGN section 5. K arrives as a tensor and becomes a run-time size; the predictions
end in the one-to-one TopK, or in DecodeNMS on the one-to-many branch. The network itself is called, not rewritten.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from apex_runtime.model_info import Decode, output_names
from apex_runtime.routing.quadtree import CHILDREN
from apex_train.model.decode import decode_detections
from apex_train.model.detector import ApexDetector
from apex_train.model.quadtree import routing_outputs


class DeployedDetector(nn.Module):
    """images uint8 [B,H,W,3], tiles int64 [1], tile_bonus float32 [B,N], and ``finer``: the last two of every level below 0 ->
    the outputs in the order of ``output_names``."""

    def __init__(self, detector: ApexDetector, decode: Decode = "topk") -> None:
        super().__init__()
        self.detector = detector
        self.decode = decode
        self.eval()

    def forward(self, images: Tensor, tiles: Tensor, tile_bonus: Tensor, *finer: Tensor) -> tuple[Tensor, ...]:
        """K = tiles[0], 1 <= K <= N: read from the tensor, so that it stays an input of the graph. On finer levels 0 <= K <= 4
        times the K of the level above."""
        count = tiles.item()
        torch._check(count >= 1)
        torch._check(count <= tile_bonus.shape[1])
        counts = [count]
        for item in finer[::2]:
            count = item.item()
            torch._check(count >= 0)
            torch._check(count <= CHILDREN * counts[-1])
            counts.append(count)
        outputs = self.detector(images, counts, (tile_bonus, *finer[1::2]))
        limit = self.detector.config.max_detections
        found = decode_detections(outputs.heads, images.shape[1], images.shape[2], limit, self.decode)
        found |= routing_outputs(outputs.levels)
        return tuple(found[name] for name in output_names(self.detector.config.depth))
