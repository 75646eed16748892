"""Whether kernels may stand for the formulas of the ops, as a run is told."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from apex_plugins.kernels.torch_face import why_not
from apex_runtime.data.open import open_dataset
from apex_train.config import load_config
from apex_train.engine.trainer import Trainer


def start(data: Path, output: Path, kernels: str) -> None:
    options = {"train.size": 128, "train.crop": 128, "train.batch": 2, "train.workers": 0, "train.kernels": kernels}
    Trainer(load_config(None, options), open_dataset(data, "train"), None, output, Console(file=io.StringIO()))


def test_a_run_says_whether_kernels_stand_for_formulas(nuclei_fixture: Path, tmp_path: Path) -> None:
    try:
        start(nuclei_fixture, tmp_path / "off", "off")
        reason = why_not("tile_pack")
    finally:
        start(nuclei_fixture, tmp_path / "auto", "auto")
    assert reason is not None and reason.reason == "kernels_switched_off"
    now = why_not("tile_pack")
    assert now is None or now.reason != "kernels_switched_off"
