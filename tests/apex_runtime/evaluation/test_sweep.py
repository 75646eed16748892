"""What a row of a sweep says it cost."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from discs_coco import write_discs

from apex_runtime.bundle.load import open_engine
from apex_runtime.data.open import open_dataset
from apex_runtime.evaluation.memory import peak_resident_bytes
from apex_runtime.evaluation.sweep import SweepOptions, TimedSession, sweep
from apex_runtime.model_info import ModelInfo
from apex_runtime.routing.budget import parse_budget


class Slow:
    """The tiny model, 20 ms slower per call, on a device that tells its memory; the first call of each budget takes 600 ms."""

    peak_memory_bytes = 12_345

    def __init__(self, path: Path) -> None:
        self._session = open_engine(path, 1).session
        self.info: ModelInfo = self._session.info
        self.name = "slow"
        self.tiles: list[int] = []

    def run(self, images: np.ndarray, tiles: int, tile_bonus: np.ndarray) -> dict[str, np.ndarray]:
        time.sleep(0.02 if tiles in self.tiles else 0.6)
        self.tiles.append(tiles)
        return self._session.run(images, tiles, tile_bonus)


def test_times_leave_out_the_first_call_and_the_observer(tiny_onnx: Path, tmp_path: Path) -> None:
    dataset = open_dataset(write_discs(tmp_path / "data"), "test")
    session = Slow(tiny_onnx)
    budgets = [parse_budget(text) for text in ("1", "1.0")]
    seen: list[tuple[str, int]] = []

    def observe(asked: str, done: int) -> None:
        time.sleep(0.3)
        seen.append((asked, done))

    rows = sweep(session, dataset, budgets, SweepOptions(batch=2), observe)
    assert seen == [("1", 2), ("1", 4), ("1", 6), ("1.0", 2), ("1.0", 4), ("1.0", 6)]
    assert session.tiles == [1] * 4 + [16] * 4, "one batch first, which is not timed"
    for row in rows:
        assert 10 <= row["graph_milliseconds"]["median"] <= row["graph_milliseconds"]["p95"] < 300
        assert row["graph_milliseconds"]["median"] < row["image_milliseconds"]["median"] < 150
        assert 1000 / row["images_per_second"] == pytest.approx(row["image_milliseconds"]["median"], rel=2)
        assert row["peak_memory"]["device_bytes"] == 12_345


def test_a_session_that_does_not_tell_its_memory(tiny_onnx: Path) -> None:
    assert TimedSession(open_engine(tiny_onnx, 1).session).peak_memory_bytes is None


def test_peak_memory_is_of_this_process_and_in_bytes() -> None:
    code = (
        "from apex_runtime.evaluation.memory import peak_resident_bytes as peak\n"
        "before = peak(); held = bytearray(b'x') * 200_000_000; del held; print(before, peak())"
    )
    before, after = map(int, subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.split())
    assert 190e6 < after - before < 260e6 and before < 150e6
    assert (peak_resident_bytes() or 0) > 20e6
