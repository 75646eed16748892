"""The router's expected cost, the price on its excess, and both in a run."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from apex_runtime.data.open import open_dataset
from apex_train.checkpoint import read_checkpoint
from apex_train.config import load_config
from apex_train.engine.trainer import Trainer
from apex_train.losses.budget import DualVariable, TileCost, excess_cost, expected_cost
from apex_train.losses.ranking import rank_correlation

SMALL = {"train.size": 128, "train.crop": 128, "train.batch": 2, "train.workers": 0, "train.epochs": 4, "train.warmup_steps": 1}


@given(st.integers(0, 10_000), st.floats(0.05, 1), st.floats(0, 0.5))
def test_the_excess_is_that_of_the_formula(seed: int, share: float, passed: float) -> None:
    utility = np.random.default_rng(seed).normal(0, 3, (3, 10))
    p = 1 / (1 + np.exp(-utility))
    cost = (p * 2.0 + (1 - p) * passed).sum(1)
    wanted = 10 * (share * 2.0 + (1 - share) * passed)
    found = torch.from_numpy(utility)
    np.testing.assert_allclose(expected_cost(found, TileCost(2.0, passed)), cost, rtol=1e-12)
    assert float(excess_cost(found, TileCost(2.0, passed), share)) == pytest.approx(((cost - wanted) / wanted).mean(), rel=1e-9)


def test_its_gradient_against_finite_differences() -> None:
    utility = torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda u: excess_cost(u, TileCost(0.15, 0.01), 0.3), utility)


def test_the_price_rises_rests_and_falls_within_its_limits() -> None:
    dual = DualVariable()
    for _ in range(20):
        dual.update(-0.5)
    assert dual.mu == 0
    for _ in range(400):
        dual.update(3.0)
    assert dual.mu == DualVariable.LIMIT
    again = DualVariable()
    again.restore(dual.state())
    again.update(0.0)
    assert again.mu <= DualVariable.LIMIT and again.mean < dual.mean
    still = DualVariable()
    still.mu = 1.0
    for _ in range(10):
        still.update(DualVariable.DEADBAND / 2)
    assert 0.98 < still.mu < 1.0  # within the deadband it only fades


def test_the_price_holds_the_spending_at_the_wanted_share() -> None:
    """Every tile is worth something to the task; the price makes the router mean to look at a quarter of them."""
    worth = torch.linspace(0.02, 0.3, 64)[None]
    utility, dual = torch.zeros(1, 64, requires_grad=True), DualVariable()
    optimizer = torch.optim.Adam([utility], lr=0.05)
    for _ in range(3000):
        excess = excess_cost(utility, TileCost(0.15), 0.25)
        loss = dual.mu * excess - (worth * torch.sigmoid(utility)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        dual.update(float(excess.detach()))
    assert abs(float(excess.detach())) < 0.25 and dual.mu > 0
    assert (utility.detach()[0, -16:] > 0).all() and (utility.detach()[0, :32] < 0).all()  # the most worthy quarter


def test_a_run_keeps_its_price(nuclei_fixture: Path, tmp_path: Path) -> None:
    config = load_config(None, SMALL | {"loss.budget": 1.0, "routing.share": 0.05})
    run = Trainer(config, open_dataset(nuclei_fixture, "train"), None, tmp_path, Console(file=io.StringIO()))
    run.fit(stop_after_epoch=2)
    assert run.stepper.dual.mu > 0 and run.history[-1]["budget"] > 0 and run.history[-1]["mu"] > 0
    assert 0.01 < run.stepper.figures.cost.looked < 1  # GFLOPs
    again = Trainer(config, open_dataset(nuclei_fixture, "train"), None, tmp_path, Console(file=io.StringIO()))
    again.resume(tmp_path / "last.pt")
    assert again.stepper.dual.state() == run.stepper.dual.state()
    assert read_checkpoint(tmp_path / "last.pt")["training"]["dual"]["mu"] == run.stepper.dual.mu


def test_rank_correlation_is_spearmans() -> None:
    a = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 1.0, 2.0, 3.0, 3.0]])
    b = torch.tensor([[5.0, 6.0, 7.0, 8.0, 7.0], [2.0, 1.0, 3.0, 3.0, 9.0]])
    # The first row is Wikipedia's form 1 - 6 sum d^2 / (n (n^2 - 1)) corrected for the tie; both by hand from mean ranks.
    for row in range(2):
        x, y = (np.array([(v < w).sum() + ((v == w).sum() + 1) / 2 for w in v]) for v in (a[row].numpy(), b[row].numpy()))
        assert float(rank_correlation(a, b)[row]) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert torch.isnan(rank_correlation(torch.ones(1, 4), torch.arange(4.0)[None]))
