"""Whether kernels may stand for the formulas of the ops, as a run is told."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from apex_plugins.kernels.torch_face import why_not
from apex_runtime.data.open import open_dataset
from apex_train.config import load_config
from apex_train.engine.trainer import Trainer


@pytest.mark.parametrize("kernels", ["off", "auto"])
def test_a_run_says_whether_kernels_stand_for_formulas(
    nuclei_fixture: Path, tmp_path: Path, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"train.size": 128, "train.crop": 128, "train.batch": 5, "train.workers": 0, "train.kernels": kernels}
    config = load_config(None, options | {"train.epochs": 1})
    run = Trainer(config, open_dataset(nuclei_fixture, "train"), None, tmp_path, Console(file=io.StringIO()))
    asked = []
    step = run.train_step
    monkeypatch.setattr(run, "train_step", lambda batch: (asked.append(why_not("tile_pack")), step(batch))[1])
    run.fit()
    after = why_not("tile_pack")
    (during,) = {None if reason is None else reason.reason.value for reason in asked}
    assert (during == "kernels_switched_off") == (kernels == "off")
    assert after is None or after.reason != "kernels_switched_off"
