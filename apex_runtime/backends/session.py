"""The one protocol behind which every executable form of the model stands: torch checkpoint, ONNX file, engine bundle."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from apex_runtime.model_info import ModelInfo

# K; of a model with several levels of tiles one number per level, the coarsest first.
Tiles = int | tuple[int, ...]


def per_level(tiles: Tiles) -> tuple[int, ...]:
    """K of every level."""
    return (tiles,) if isinstance(tiles, int) else tiles


def in_all(tiles: Tiles) -> int:
    """K of all levels together: what a budget counts."""
    return sum(per_level(tiles))


class Session(Protocol):
    """Something that runs the graph of DESIGN section 5.

    ``run`` takes images uint8 [B,H,W,3] (RGB, letterboxed), the number of tiles K (1 <= K <= N, one for the batch) and
    tile_bonus float32 [B,N]; it returns every graph output by name as NumPy arrays. With several levels K is a tuple, at least 1
    of level 0 and of each of the others at most four times what the level above has, and N counts the tiles of all levels, those
    of level 0 first.
    """

    @property
    def info(self) -> ModelInfo: ...

    @property
    def name(self) -> str:
        """What executes, for tables and reports: ``ort-cpu``, ``torch``, ..."""
        ...

    def run(self, images: np.ndarray, tiles: Tiles, tile_bonus: np.ndarray) -> dict[str, np.ndarray]: ...
