"""The detector as it is traced: everything in which the exported graph differs from a training step is written here.

The graph's inputs and outputs are those of DESIGN section 5. K arrives as a tensor and becomes a run-time size; the predictions
end in the one-to-one TopK, or in DecodeNMS on the one-to-many branch. The network itself is called, not rewritten.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from apex_runtime.model_info import OUTPUT_NAMES, Decode
from apex_train.model.decode import decode_detections
from apex_train.model.detector import ApexDetector


class DeployedDetector(nn.Module):
    """images uint8 [B,H,W,3], tiles int64 [1], tile_bonus float32 [B,N] -> the outputs in the order of ``OUTPUT_NAMES``."""

    def __init__(self, detector: ApexDetector, decode: Decode = "topk") -> None:
        super().__init__()
        self.detector = detector
        self.decode = decode
        self.eval()

    def forward(self, images: Tensor, tiles: Tensor, tile_bonus: Tensor) -> tuple[Tensor, ...]:
        """K = tiles[0], 1 <= K <= N: read from the tensor, so that it stays an input of the graph."""
        count = tiles.item()
        torch._check(count >= 1)
        torch._check(count <= tile_bonus.shape[1])
        outputs = self.detector(images, count, tile_bonus)
        limit = self.detector.config.max_detections
        found = decode_detections(outputs.heads, images.shape[1], images.shape[2], limit, self.decode)
        found["tile_ids"] = outputs.tile_ids
        found["tile_levels"] = torch.zeros_like(outputs.tile_ids)
        found["utilities"] = outputs.utilities
        return tuple(found[name] for name in OUTPUT_NAMES)
