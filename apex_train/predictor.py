"""The torch form of the graph behind the runtime's Session protocol, so that torch and engines share everything after it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from apex_runtime.backends.session import Tiles, per_level
from apex_runtime.errors import UsageError
from apex_runtime.model_info import Decode, ModelInfo
from apex_train.checkpoint import file_sha256, load_model
from apex_train.engine.device import resolve_device
from apex_train.model.decode import decode_detections
from apex_train.model.detector import ApexDetector
from apex_train.model.info import model_info
from apex_train.model.quadtree import routing_outputs

DEFAULT_SIZE = 512


class TorchSession:
    """A detector at one input size. ``peripheral_only`` gates every tile off: the K = 0 line of an evaluation."""

    def __init__(
        self,
        model: ApexDetector,
        height: int,
        width: int,
        checkpoint_sha256: str = "",
        peripheral_only: bool = False,
        decode: Decode = "topk",
    ) -> None:
        self.model = model
        self.peripheral_only = peripheral_only
        self._info = model_info(model, height, width, checkpoint_sha256, decode=decode)

    @property
    def info(self) -> ModelInfo:
        """The passport an export at this size would carry."""
        return self._info

    @property
    def name(self) -> str:
        """What executes, for tables and reports."""
        return "torch"

    @property
    def peak_memory_bytes(self) -> int | None:
        """The most memory of the GPU that was allocated at once; None on a CPU."""
        device = self.model.pixel_mean.device
        return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None

    def run(self, images: np.ndarray, tiles: Tiles, tile_bonus: np.ndarray) -> dict[str, np.ndarray]:
        """Images uint8 [B,H,W,3], K, bonus float32 [B,N] -> every output of the graph by name."""
        self.model.eval()
        device = self.model.pixel_mean.device
        with torch.inference_mode():
            pixels, bonus = (torch.from_numpy(np.ascontiguousarray(item)).to(device) for item in (images, tile_bonus))
            outputs = self.model(pixels, per_level(tiles), bonus, with_peripheral=self.peripheral_only)
            heads = outputs.peripheral if self.peripheral_only else outputs.heads
            info = self._info
            found = decode_detections(heads, info.input.height, info.input.width, info.max_detections, info.decode)
            found |= routing_outputs(outputs.levels)
        return {name: value.cpu().numpy() for name, value in found.items()}


def open_checkpoint(
    path: Path,
    size: tuple[int, int] | None = None,
    threads: int | None = None,
    decode: Decode = "topk",
    device: str = "cpu",
) -> TorchSession:
    """Open a ``.pt`` file as a session for inputs of ``size`` (height, width); the entry point that the runtime looks up.

    ``decode``: as the export does that it is compared with. ``device``: cpu, cuda or cuda:N.
    """
    model = load_model(Path(path)).to(resolve_device(device, {}).device)
    if threads is not None:
        torch.set_num_threads(threads)
    height, width = size or (DEFAULT_SIZE, DEFAULT_SIZE)
    try:
        return TorchSession(model, height, width, file_sha256(Path(path)), decode=decode)
    except ValueError as error:
        raise UsageError(f"--size {height}x{width}: {error}.", "Use multiples of the tile, for example --size 512.") from error
