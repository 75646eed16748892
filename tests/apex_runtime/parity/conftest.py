"""A stand-in for a model: cheap NumPy that obeys the Session contract, and in which faults can be planted one by one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from apex_runtime.model_info import ModelInfo
from apex_runtime.routing.hilbert import hilbert_rank
from apex_runtime.routing.selection import select_tiles, selection_keys

TILE, ROWS, COLS, M, P = 32, 2, 4, 12, 3
Fault = Callable[[dict], None]

INFO = ModelInfo.model_validate(
    {
        "classes": [{"id": 7, "name": "cell"}],
        "input": {"height": ROWS * TILE, "width": COLS * TILE},
        "preprocessing": {"mean": (0, 0, 0), "std": (1, 1, 1)},
        "tiles": {"tile": TILE, "halo": 8, "rows": ROWS, "cols": COLS},
        "mask": {"channels": P},
        "max_detections": M,
        "gflops": {"base": 1, "per_tile": 0.1},
        "model": {},
    }
)


class FakeSession:
    """Scores, boxes and masks depend on the pixels of the tiles that were looked at; ``fault`` edits the outputs in place."""

    name = "fake"

    def __init__(self, fault: Fault | None = None, info: ModelInfo = INFO, utility_shift: np.ndarray | None = None) -> None:
        self.info = info
        self.fault = fault
        self.shift = np.zeros(ROWS * COLS, np.float32) if utility_shift is None else utility_shift
        self.calls: list[tuple[int, np.ndarray]] = []

    def run(self, images: np.ndarray, tiles: int, tile_bonus: np.ndarray) -> dict[str, np.ndarray]:
        self.calls.append((tiles, tile_bonus.copy()))
        assert images.shape == (1, ROWS * TILE, COLS * TILE, 3)
        cells = images.reshape(ROWS, TILE, COLS, TILE, 3).astype(np.float32).mean((1, 3, 4)).reshape(1, -1)
        utilities = (cells / 64 - 2 + np.linspace(0, 1, ROWS * COLS, dtype=np.float32) + self.shift).astype(np.float32)
        ids = select_tiles(selection_keys(utilities, tile_bonus), tiles, hilbert_rank(ROWS, COLS))
        seen = np.zeros((1, ROWS * COLS), np.float32)
        seen[0, ids[0]] = cells[0, ids[0]]
        candidates = (np.arange(40) * 7 + int(seen.sum())) % 97  # 40 different anchors
        raw = np.sin(candidates * 0.37 + seen.sum() / 500).astype(np.float32) / 2 + 0.5
        best = np.argsort(-raw, kind="stable")[:M]
        anchors = candidates[best]
        corner = np.stack([anchors % 20, anchors // 5], 1).astype(np.float32) * 4
        outputs = {
            "boxes": np.concatenate([corner, corner + 10 + seen.mean()], 1)[None].astype(np.float32),
            "scores": raw[best][None],
            "labels": np.zeros((1, M), np.int64),
            "mask_coefficients": np.cos(anchors[None, :, None] + np.arange(P)).astype(np.float32),
            "mask_prototypes": np.resize(cells, (1, P, ROWS * TILE // 4, COLS * TILE // 4)).astype(np.float32),
            "candidate_ids": anchors[None].astype(np.int64),
            "tile_ids": ids,
            "tile_levels": np.zeros_like(ids),
            "utilities": utilities,
        }
        if self.fault:
            self.fault(outputs)
        return outputs


@pytest.fixture
def fake() -> type[FakeSession]:
    return FakeSession
