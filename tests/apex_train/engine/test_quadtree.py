"""What a training step draws on the finer levels, and that it teaches them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from apex_runtime.data.open import open_dataset
from apex_train.config import RoutingConfig, load_config
from apex_train.engine.probe import probe_memory
from apex_train.engine.quadtree import add_finer_levels
from apex_train.engine.schedule import FORCE
from apex_train.engine.step import draw_step
from apex_train.engine.trainer import Trainer

SMALL = {"train.size": 128, "train.crop": 128, "train.batch": 2, "train.epochs": 1, "train.workers": 0, "train.warmup_steps": 0}


def test_draws_cover_none_to_all_children_from_the_first_step() -> None:
    config = load_config(None, SMALL | {"model.tile": 32, "model.depth": 3})
    draws = [draw_step(config, step, 1000, 1, 2, slice(None)) for step in range(400)]
    assert all(draw.tiles[0] == 1 and draw.bonus.shape == (2, 1 + 4 + 16) for draw in draws)
    assert {draw.tiles[1] for draw in draws} == set(range(5))
    assert all(0 <= draw.tiles[2] <= 4 * draw.tiles[1] for draw in draws)
    assert max(draw.tiles[2] for draw in draws) == 16 and min(draw.tiles[2] for draw in draws) == 0


def test_one_level_draws_what_it_drew() -> None:
    config = RoutingConfig()
    bonus = np.zeros((2, 9), np.float32)
    rng = np.random.default_rng(0)
    tiles, same = add_finer_levels(4, bonus, 1, config, rng)
    assert tiles == (4,) and np.array_equal(same, bonus) and rng.random() == np.random.default_rng(0).random()


def test_a_share_of_the_children_is_random() -> None:
    config = RoutingConfig(keep_all=0, explore=0.25)
    shares = []
    for seed in range(300):
        tiles, bonus = add_finer_levels(8, np.zeros((1, 16), np.float32), 2, config, np.random.default_rng(seed))
        assert set(np.unique(bonus).tolist()) <= {0.0, FORCE}
        chosen = np.random.default_rng(seed).permutation(16)[:8]  # parents; the bonus of their children counts
        forced = int((bonus[0, 16:].reshape(16, 4)[chosen] > 0).sum())
        if 4 <= tiles[1] < 32:
            shares.append(forced / tiles[1])
    assert 0.2 < np.mean(shares) < 0.3


def test_one_step_moves_the_routers_of_all_levels(nuclei_fixture: Path, tmp_path: Path) -> None:
    config = load_config(None, SMALL | {"model.tile": 32, "model.depth": 2, "loss.budget": 0.1, "routing.keep_all": 0})
    run = Trainer(config, open_dataset(nuclei_fixture, "train"), None, tmp_path, Console(file=io.StringIO()))
    before = {name: value.detach().clone() for name, value in run.model.named_parameters()}
    terms = run.train_step(next(iter(run.loader)))
    assert all(np.isfinite(value) for value in terms.values()) and terms["tiles"] > 4
    for name in ("router.score.0.weight", "finer_routers.0.score.0.weight", "foveal.project.weight"):
        assert not torch.equal(dict(run.model.named_parameters())[name], before[name]), name


def test_the_probe_fits_a_grid_of_an_odd_number_of_tiles(nuclei_fixture: Path, tmp_path: Path) -> None:
    """3 x 3 tiles and 36 children: half of the children are more than the chosen parents have."""
    odd = {"model.tile": 32, "model.depth": 2, "train.size": 192, "train.crop": 192}
    run = Trainer(
        load_config(None, SMALL | odd), open_dataset(nuclei_fixture, "train"), None, tmp_path, Console(file=io.StringIO())
    )
    assert probe_memory(run).micro_batch == 2
