"""What is not taught stays as it is: the router alone, and a network whose tiles tell each other nothing."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from rich.console import Console

from apex_runtime.data.open import open_dataset
from apex_train.config import load_config
from apex_train.engine.trainer import Trainer

TOY = {"train.size": 128, "train.crop": 128, "train.batch": 4, "train.workers": 0, "train.epochs": 1, "train.warmup_steps": 1}


def trained(data: Path, output: Path, init: Path | None = None, **overrides: object) -> Trainer:
    config = load_config(None, TOY | {key.replace("__", "."): value for key, value in overrides.items()})
    run = Trainer(config, open_dataset(data, "train"), None, output, Console(file=io.StringIO()))
    if init is not None:
        run.initialise(init)
    run.fit()
    return run


def moves_with_others(run: Trainer) -> float:
    """How far features of one tile move when the other tiles change."""
    torch.manual_seed(0)
    tiles = torch.randn(1, 4, run.model_config.features, 8, 8)
    other = tiles.clone()
    other[:, 1:] = torch.randn_like(other[:, 1:])
    with torch.inference_mode():
        return float((run.model.context(tiles)[:, 0] - run.model.context(other)[:, 0]).abs().max())


def test_without_the_scan_a_tile_hears_nothing_of_others(nuclei_fixture: Path, tmp_path: Path) -> None:
    with_scan = trained(nuclei_fixture, tmp_path / "on")
    assert moves_with_others(with_scan) > 0
    without = trained(nuclei_fixture, tmp_path / "off", train__scan=False)
    assert moves_with_others(without) == 0
    assert any(
        (mine != other).any() for mine, other in zip(with_scan.model.parameters(), without.model.parameters(), strict=True)
    )
    went_on = trained(nuclei_fixture, tmp_path / "from", init=tmp_path / "on" / "last.pt", train__scan=False)
    assert moves_with_others(went_on) == 0


def test_the_router_alone_learns(nuclei_fixture: Path, tmp_path: Path) -> None:
    first = trained(nuclei_fixture, tmp_path / "all")
    before = {name: value.clone() for name, value in first.average.model.named_parameters()}
    run = trained(nuclei_fixture, tmp_path / "router", init=tmp_path / "all" / "last.pt", train__only="router")
    changed = {name for name, value in run.model.named_parameters() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("router.") for name in changed)
