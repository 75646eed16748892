"""The one protocol behind which every executable form of the model stands: torch checkpoint, ONNX file, engine bundle."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from apex_runtime.model_info import ModelInfo


class Session(Protocol):
    """Something that runs the graph of DESIGN section 5.

    ``run`` takes images uint8 [B,H,W,3] (RGB, letterboxed), the number of tiles K (1 <= K <= N, one for the batch) and
    tile_bonus float32 [B,N]; it returns every graph output by name as NumPy arrays.
    """

    @property
    def info(self) -> ModelInfo: ...

    @property
    def name(self) -> str:
        """What executes, for tables and reports: ``ort-cpu``, ``torch``, ..."""
        ...

    def run(self, images: np.ndarray, tiles: int, tile_bonus: np.ndarray) -> dict[str, np.ndarray]: ...
